//! The plaintext of a spill page: the tails of a group's blocks (FORMAT section 6).
//!
//! `sequence u64 | entries`, an entry being `binding 8 | state and length u16 | tail`. Entry 0 of
//! group 0 has room for the longer tail of block 0.

use crate::crypto::Wiped;

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
#[derive(Clone, PartialEq, Eq)]
pub struct SpillPage {
    first: bool,
    bytes: Wiped<Box<[u8]>>,
}

impl std::fmt::Debug for SpillPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpillPage").field("sequence", &self.sequence()).finish_non_exhaustive()
    }
}

impl SpillPage {
    /// A page with no entries, sequence 0.
    pub fn empty(group: Group) -> Self {
        Self { first: group.0 == 0, bytes: Wiped::new(vec![0; DATA_PAYLOAD].into()) }
    }

    /// The page that these decrypted bytes are.
    pub fn from_plain(group: Group, bytes: &[u8; DATA_PAYLOAD]) -> Self {
        Self { first: group.0 == 0, bytes: Wiped::new(bytes.as_slice().into()) }
    }

    /// The plaintext bytes to seal.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Which of two copies is newer.
    pub fn sequence(&self) -> u64 {
        u64::from_le_bytes(*self.bytes.first_chunk().expect(WHOLE))
    }

    /// Sets the sequence number.
    pub fn set_sequence(&mut self, sequence: u64) {
        *self.bytes.first_chunk_mut().expect(WHOLE) = sequence.to_le_bytes();
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
        match rest.get(..length) {
            Some(tail) => Entry { state, binding: *binding, tail },
            None => NONE,
        }
    }

    /// Sets the entry of the group's block number `index`.
    ///
    /// *Shape*: the group has the block, and `tail` is no longer than what a whole block has behind
    /// its data page. (Cut here, bytes would be lost that somebody was told are written.)
    pub fn set(&mut self, index: usize, state: EntryState, binding: [u8; 8], tail: &[u8]) {
        let (start, room) = self.span(index);
        assert!(tail.len() <= room, "a tail of {} bytes has room for {room}", tail.len());
        let entry = &mut self.bytes[start..start + ENTRY_HEAD + room];
        entry.fill(0);
        let length = u16::try_from(tail.len()).expect("a tail is shorter than a page");
        let code = match state {
            EntryState::Absent => return,
            EntryState::Hole => 1,
            EntryState::Present => 2,
            EntryState::Filled => 3,
        };
        let (head, body) = entry.split_at_mut(ENTRY_HEAD);
        head[..8].copy_from_slice(&binding);
        head[8..].copy_from_slice(&(code << STATE_SHIFT | length).to_le_bytes());
        body[..tail.len()].copy_from_slice(tail);
    }

    /// Notes that the page of `group` and its data pages are durable now, so what was filled stays so.
    pub fn mark_filled_durable(&mut self, group: Group) {
        for index in 0..group.entries() {
            let (start, _) = self.span(index);
            let high = &mut self.bytes[start + ENTRY_HEAD - 1];
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

/// A page is made with all of its bytes, and keeps them.
const WHOLE: &str = "a spill page has 4052 bytes";

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
            page.mark_filled_durable(group);
            let durable = Entry { state: EntryState::Present, binding: [4; 8], tail: &[9; 44] };
            assert_eq!(page.entry(1), durable);
            assert_eq!(page.entry(2).tail, tail(2));
            assert_eq!(SpillPage::from_plain(group, page.as_bytes().first_chunk().unwrap()), page);
            page.set(1, EntryState::Absent, [0; 8], &[]);
            assert_eq!(page.entry(1).state, EntryState::Absent);
            assert_eq!(page.entry(blocks).state, EntryState::Absent);
        }
    }

    #[test]
    fn what_the_bytes_claim_is_an_entry_or_nothing() {
        for group in [Group(0), Group(3)] {
            for filling in 0..=255 {
                let page = SpillPage::from_plain(group, &[filling; DATA_PAYLOAD]);
                for index in 0..=255 {
                    let Entry { state, tail, .. } = page.entry(index);
                    let has_tail = matches!(state, EntryState::Present | EntryState::Filled);
                    assert_eq!(has_tail, !tail.is_empty(), "{filling} {index}");
                    let most = if (group.0, index) == (0, 0) { FIRST_TAIL_ROOM } else { TAIL };
                    assert!(tail.len() <= most);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "has room for 44")]
    fn a_tail_that_is_too_long_is_not_cut() {
        SpillPage::empty(Group(1)).set(0, EntryState::Present, [1; 8], &[9; TAIL + 1]);
    }
}
