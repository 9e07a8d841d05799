//! Sessions by name, and what a session announces that it will change (FORMAT section 12).

use std::fmt;

use crate::id::FileId;

/// The name of one session of a volume: a number that counts up, and random bits, so that two
/// copies of a vault that go separate ways do not take each other's sessions for their own.
///
/// *Source*: FORMAT section 12.1. As an integer it is never negative.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionWord(i64);

impl SessionWord {
    /// No session.
    pub const NONE: Self = Self(0);

    /// The word of session `number`, with 31 of these random bits.
    pub const fn new(number: u32, random: u32) -> Self {
        Self((number as i64) << RANDOM_BITS | (random & RANDOM_MASK) as i64)
    }

    /// The word with this stored form. Volumes from before there were words stored plain numbers.
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }

    /// The stored form.
    pub const fn bits(self) -> i64 {
        self.0
    }

    /// The number: higher is later.
    pub const fn number(self) -> i64 {
        self.0 >> RANDOM_BITS
    }

    /// True if this session is `other`, or began before it. Of two sessions with one number, in
    /// copies that went separate ways, neither is earlier.
    pub fn is_not_after(self, other: Self) -> bool {
        self == other || self.number() < other.number()
    }
}

impl fmt::Debug for SessionWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.number(), self.0 & i64::from(RANDOM_MASK))
    }
}

impl fmt::Display for SessionWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The files that a session announced before it changed them: by id, then by parts of the id
/// space, then all. File ids are random and authenticated, so nobody picks the part that a file
/// falls into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intents {
    ids: Vec<FileId>,
    parts: u64,
    all: bool,
}

impl Intents {
    /// Every file.
    pub const fn all() -> Self {
        Self { ids: Vec::new(), parts: 0, all: true }
    }

    pub(super) const fn from_parts(ids: Vec<FileId>, parts: u64, all: bool) -> Self {
        Self { ids, parts, all }
    }

    /// The file ids that are named one by one.
    pub fn ids(&self) -> &[FileId] {
        &self.ids
    }

    /// The parts of the id space that are covered whole, one bit each.
    pub const fn parts(&self) -> u64 {
        self.parts
    }

    /// True if every file is covered.
    pub const fn is_all(&self) -> bool {
        self.all
    }

    /// True if nothing is covered.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.parts == 0 && !self.all
    }

    /// True if the file was announced.
    pub fn covers(&self, file: FileId) -> bool {
        self.all || self.parts & part_of(file) != 0 || self.ids.contains(&file)
    }

    /// Announces a file: exactly while there is room for that, then more than was asked.
    pub fn add(&mut self, file: FileId) {
        if self.covers(file) {
            return;
        }
        if self.ids.len() < EXACT {
            self.ids.push(file);
        } else if self.parts.count_ones() < PARTS {
            self.parts |= part_of(file);
        } else {
            *self = Self::all();
        }
    }

    /// Announces everything that `other` does, and as little more as there is room for.
    pub fn merge(&mut self, other: &Self) {
        if self.all || other.all {
            *self = Self::all();
            return;
        }
        self.parts |= other.parts;
        let mut ids = std::mem::take(&mut self.ids);
        ids.extend(&other.ids);
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.parts & part_of(*id) == 0);
        for id in ids.split_off(ids.len().min(EXACT)) {
            self.parts |= part_of(id);
        }
        self.ids = ids;
    }
}

/// The bit of the part of the id space that a file is in.
fn part_of(file: FileId) -> u64 {
    let [first, ..] = file.as_bytes();
    1 << (first % 64)
}

const RANDOM_BITS: u32 = 31;
const RANDOM_MASK: u32 = (1 << RANDOM_BITS) - 1;
/// Files of one generation that are announced by their ids.
pub(super) const EXACT: usize = 64;
/// Parts of the id space that are announced before everything is.
const PARTS: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: u8) -> FileId {
        FileId::from_bytes([number; 16])
    }

    #[test]
    fn words_are_ordered_by_their_numbers() {
        let (old, new) = (SessionWord::new(4, u32::MAX), SessionWord::new(5, 1));
        assert!(old.is_not_after(new) && !new.is_not_after(old) && new.is_not_after(new));
        let fork = SessionWord::new(5, 2);
        assert!(!fork.is_not_after(new) && !new.is_not_after(fork));
        assert!(SessionWord::new(u32::MAX, u32::MAX).bits() > 0);
    }

    #[test]
    fn announcements_get_coarser_and_never_forget() {
        let mut intents = Intents::default();
        let mut writes = 0;
        for number in 0..=255_u8 {
            let before = intents.clone();
            intents.add(file(number));
            writes += usize::from(before != intents);
            for earlier in 0..=number {
                assert!(intents.covers(file(earlier)), "{earlier} after {number}");
            }
        }
        assert!(intents.is_all());
        assert_eq!(writes, EXACT + PARTS as usize + 1, "each is a sync");
    }

    #[test]
    fn a_merge_covers_both() {
        let mut one = Intents::default();
        let mut two = Intents::default();
        (0..50).for_each(|number| one.add(file(number)));
        (40..100).for_each(|number| two.add(file(number)));
        one.merge(&two);
        assert!((0..100).all(|number| one.covers(file(number))) && !one.is_all());
        assert!(one.ids().len() <= EXACT);
        one.merge(&Intents::all());
        assert!(one.covers(file(200)));
    }
}
