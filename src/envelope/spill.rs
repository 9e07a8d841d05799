//! The plaintext of a spill page: the tails of a group's blocks (FORMAT section 6).
//!
//! `sequence u64 | entries`, an entry being `binding 8 | state and length u16 | tail`. Entry 0 of
//! group 0 has room for the longer tail of block 0.

use super::layout::{DATA_PAYLOAD, FIRST_TAIL, FIRST_TAIL_ROOM, Group, TAIL};

const SEQUENCE: usize = 8;
const ENTRY_HEAD: usize = 10;
const STATE_SHIFT: u16 = 14;
const LENGTH_MASK: u16 = (1 << STATE_SHIFT) - 1;

/// What a spill entry says of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryState {
    /// Nothing: the block ends within its data page, or was never written.
    Absent,
    /// The block is a hole.
    Hole,
    /// The block has a tail.
    Present,
    /// The block has a tail, and was a hole when this was written: until the next sync a crash may
    /// leave it one.
    Filled,
}

/// One block's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What the entry says.
    pub state: EntryState,
    /// The first 8 bytes of the tag of the data unit that the tail belongs to.
    pub binding: [u8; 8],
    /// The block's bytes past its data page.
    pub tail: &'a [u8],
}

/// The decrypted spill page of one group. Wiped on drop.
#[derive(Clone, PartialEq, Eq, zeroize::ZeroizeOnDrop)]
pub struct SpillPage {
    #[zeroize(skip)]
    first: bool,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for SpillPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillPage").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}

impl SpillPage {
    /// A page with no entries, sequence 0.
    pub fn empty(group: Group) -> Self {
        Self { first: group.0 == 0, bytes: vec![0; DATA_PAYLOAD] }
    }

    /// The page that these decrypted bytes are; a short page reads as absent entries past its end.
    pub fn from_plain(group: Group, bytes: &[u8]) -> Self {
        let mut page = Self::empty(group);
        let length = bytes.len().min(DATA_PAYLOAD);
        if let (Some(to), Some(from)) = (page.bytes.get_mut(..length), bytes.get(..length)) {
            to.copy_from_slice(from);
        }
        page
    }

    /// The plaintext bytes to seal.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which of two copies is newer.
    pub fn sequence(&self) -> u64 {
        self.bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
    }

    /// Sets the sequence number.
    pub fn set_sequence(&mut self, sequence: u64) {
        if let Some(room) = self.bytes.first_chunk_mut() {
            *room = sequence.to_le_bytes();
        }
    }

    /// The entry of the group's block number `index`.
    pub fn entry(&self, index: usize) -> Entry<'_> {
        const NONE: Entry<'_> = Entry { state: EntryState::Absent, binding: [0; 8], tail: &[] };
        let (start, room) = self.span(index);
        let Some((binding, rest)) =
            self.bytes.get(start..).and_then(|b| b.split_first_chunk::<8>())
        else {
            return NONE;
        };
        let Some((word, rest)) = rest.split_first_chunk::<2>() else { return NONE };
        let word = u16::from_le_bytes(*word);
        let length = usize::from(word & LENGTH_MASK);
        let state = match (word >> STATE_SHIFT, length) {
            (1, 0) => EntryState::Hole,
            (2, 1..) if length <= room => EntryState::Present,
            (3, 1..) if length <= room => EntryState::Filled,
            _ => return NONE,
        };
        Entry { state, binding: *binding, tail: rest.get(..length).unwrap_or(&[]) }
    }

    /// Sets the entry of the group's block number `index`.
    pub fn set(&mut self, index: usize, state: EntryState, binding: [u8; 8], tail: &[u8]) {
        let (start, room) = self.span(index);
        let Some(entry) = self.bytes.get_mut(start..start + ENTRY_HEAD + room) else { return };
        entry.fill(0);
        let length = u16::try_from(tail.len().min(room)).unwrap_or(0);
        let code = match state {
            EntryState::Absent => return,
            EntryState::Hole => 1,
            EntryState::Present => 2,
            EntryState::Filled => 3,
        };
        let (head, body) = entry.split_at_mut(ENTRY_HEAD);
        if let Some((to, word)) = head.split_first_chunk_mut::<8>() {
            *to = binding;
            word.copy_from_slice(&(code << STATE_SHIFT | length).to_le_bytes());
        }
        if let (Some(to), Some(from)) =
            (body.get_mut(..usize::from(length)), tail.get(..usize::from(length)))
        {
            to.copy_from_slice(from);
        }
    }

    /// Notes that the page and its data pages are durable now: what was filled stays so.
    pub fn settle(&mut self, blocks: usize) {
        for index in 0..blocks {
            let (start, _) = self.span(index);
            let Some([_, high]) = self.bytes.get_mut(start + 8..start + ENTRY_HEAD) else {
                continue;
            };
            if u16::from(*high) >> (STATE_SHIFT - 8) == 3 {
                *high = (*high & !(3 << (STATE_SHIFT - 8))) | 2 << (STATE_SHIFT - 8);
            }
        }
    }

    /// True if no entry says anything.
    pub fn is_empty(&self) -> bool {
        self.bytes.iter().skip(SEQUENCE).all(|b| *b == 0)
    }

    /// Where an entry starts and how long its tail may be.
    fn span(&self, index: usize) -> (usize, usize) {
        let small = ENTRY_HEAD + TAIL;
        match (self.first, index) {
            (true, 0) => (SEQUENCE, FIRST_TAIL_ROOM),
            (true, _) => (SEQUENCE + ENTRY_HEAD + FIRST_TAIL_ROOM + (index - 1) * small, TAIL),
            (false, _) => (SEQUENCE + index * small, TAIL),
        }
    }
}

const _: () = assert!(FIRST_TAIL <= FIRST_TAIL_ROOM);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_both_kinds_of_group_has_its_own_room() {
        for group in [Group(0), Group(3)] {
            let mut page = SpillPage::empty(group);
            let blocks = usize::try_from(group.blocks()).unwrap();
            let tail = |i: usize| {
                let length = if group.0 == 0 && i == 0 { FIRST_TAIL } else { TAIL };
                vec![u8::try_from(i + 1).unwrap(); length]
            };
            for i in 0..blocks {
                page.set(i, EntryState::Present, [u8::try_from(i).unwrap(); 8], &tail(i));
            }
            for i in 0..blocks {
                let entry = page.entry(i);
                assert_eq!(entry.state, EntryState::Present);
                assert_eq!(entry.tail, tail(i));
                assert_eq!(entry.binding, [u8::try_from(i).unwrap(); 8]);
            }
            assert_eq!(page.sequence(), 0);
            page.set(1, EntryState::Hole, [0; 8], &[]);
            assert_eq!(page.entry(1).state, EntryState::Hole);
            page.set(1, EntryState::Filled, [4; 8], &[9; 44]);
            assert_eq!(page.entry(1).state, EntryState::Filled);
            page.settle(blocks);
            let settled = Entry { state: EntryState::Present, binding: [4; 8], tail: &[9; 44] };
            assert_eq!(page.entry(1), settled);
            assert_eq!(page.entry(2).tail, tail(2));
            page.set(1, EntryState::Absent, [0; 8], &[]);
            assert_eq!(page.entry(1).state, EntryState::Absent);
            assert_eq!(page.entry(blocks).state, EntryState::Absent);
        }
    }
}
