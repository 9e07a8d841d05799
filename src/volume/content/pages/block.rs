//! What a block holds, given its data unit, its spill entry and the file's seal (R1, R5, R7, R10).
//!
//! A pure decision, so that its table can be read and tested.

use crate::envelope::{Entry, EntryState, Opened};

/// What is known about a block before it is judged.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume::content) struct BlockFacts {
    /// Bytes of the block that lie within the file's size.
    pub(in crate::volume::content) expected: usize,
    /// Bytes that its data page can hold.
    pub(in crate::volume::content) payload: usize,
    /// True for the last block of the file.
    pub(in crate::volume::content) last: bool,
    /// The file may have holes.
    pub(in crate::volume::content) sparse: bool,
    /// The group has no spill page at all.
    pub(in crate::volume::content) group_absent: bool,
}

/// What the block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume::content) enum BlockContents {
    /// Zeros, and it is authentic that there is nothing.
    Hole,
    /// The data unit's bytes, then those of its entry's tail, and zeros up to `expected`.
    Bytes {
        /// How many bytes the unit and the tail have: what is behind them is made up.
        held: usize,
        /// What is odd about it, if a crash can have caused it and only then.
        odd: Option<&'static str>,
    },
    /// Zeros, and only a crash can have left it so.
    OddHole {
        /// What is odd about it.
        what: &'static str,
        /// It is authentic that the block was a hole before.
        was_hole: bool,
    },
    /// Nothing that may be returned.
    Missing(&'static str),
}

/// Judges a block from its opened data unit and its spill entry.
pub(in crate::volume::content) fn judge(
    facts: BlockFacts,
    unit: Opened,
    entry: Entry<'_>,
) -> BlockContents {
    let (length, tag) = match unit {
        Opened::Absent => return absent(facts, entry),
        Opened::Present { length, tag } => (length, tag),
    };
    if facts.expected <= length {
        return BlockContents::Bytes { held: length, odd: None };
    }
    if length < facts.payload {
        return short(facts, length, "a page shorter than its block");
    }
    match entry.state {
        EntryState::Present | EntryState::Filled => {
            let odd = (entry.binding != tag).then_some("the halves of a block are of two writes");
            let held = length + entry.tail.len();
            if held < facts.expected {
                return short(facts, held, "a tail shorter than its block");
            }
            BlockContents::Bytes { held, odd }
        }
        EntryState::Absent | EntryState::Hole => short(facts, length, "a block without its tail"),
    }
}

fn absent(facts: BlockFacts, entry: Entry<'_>) -> BlockContents {
    match entry.state {
        _ if !facts.sparse || facts.last => BlockContents::Missing("a page of the file"),
        EntryState::Hole => BlockContents::Hole,
        EntryState::Absent if facts.group_absent => BlockContents::Hole,
        EntryState::Absent => odd_hole("a hole that nothing vouches for", false),
        EntryState::Filled => odd_hole("a hole that was being filled", true),
        EntryState::Present => BlockContents::Missing("a page whose tail exists"),
    }
}

const fn odd_hole(what: &'static str, was_hole: bool) -> BlockContents {
    BlockContents::OddHole { what, was_hole }
}

/// The block ends early. Inside the file that reads as zeros after a crash; at its end the size
/// itself is wrong, and bytes that were never written are not made up.
fn short(facts: BlockFacts, held: usize, odd: &'static str) -> BlockContents {
    if facts.last {
        BlockContents::Missing(odd)
    } else {
        BlockContents::Bytes { held, odd: Some(odd) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: [u8; 8] = [1; 8];
    const FULL: Opened = Opened::Present { length: 4052, tag: TAG };
    const SHORT: Opened = Opened::Present { length: 100, tag: TAG };
    const TAIL: [u8; 44] = [7; 44];

    fn facts() -> BlockFacts {
        BlockFacts {
            expected: 4096,
            payload: 4052,
            last: false,
            sparse: false,
            group_absent: false,
        }
    }

    fn entry(state: EntryState, binding: [u8; 8], tail: &[u8]) -> Entry<'_> {
        Entry { state, binding, tail }
    }

    #[test]
    fn the_table_of_units_and_entries() {
        use EntryState::{Absent, Hole, Present};
        let whole = entry(Present, TAG, &TAIL);
        let other = entry(Present, [2; 8], &TAIL);
        let (none, hole) = (entry(Absent, [0; 8], &[]), entry(Hole, [0; 8], &[]));
        let last = BlockFacts { last: true, ..facts() };
        let sparse = BlockFacts { sparse: true, ..facts() };
        let odd = |contents| matches!(contents, BlockContents::Bytes { odd: Some(_), .. });
        let missing = |contents| matches!(contents, BlockContents::Missing(_));
        assert_eq!(judge(facts(), FULL, whole), BlockContents::Bytes { held: 4096, odd: None });
        assert!(odd(judge(facts(), FULL, other)), "two writes");
        assert!(odd(judge(facts(), FULL, none)), "no tail, inside");
        assert!(missing(judge(last, FULL, none)), "no tail, at the end");
        assert!(odd(judge(facts(), SHORT, whole)), "short page, inside");
        assert!(missing(judge(last, SHORT, whole)), "short page, at the end");
        let end = BlockFacts { expected: 100, ..last };
        assert_eq!(judge(end, SHORT, none), BlockContents::Bytes { held: 100, odd: None });
        assert_eq!(judge(end, FULL, none), BlockContents::Bytes { held: 4052, odd: None });
        assert!(missing(judge(facts(), Opened::Absent, whole)), "dense files have no holes");
        assert!(missing(judge(facts(), Opened::Absent, hole)), "dense files have no holes");
        assert_eq!(judge(sparse, Opened::Absent, hole), BlockContents::Hole);
        assert!(matches!(judge(sparse, Opened::Absent, none), BlockContents::OddHole { .. }));
        assert!(missing(judge(sparse, Opened::Absent, whole)));
        let filled = entry(EntryState::Filled, TAG, &TAIL);
        assert!(matches!(judge(sparse, Opened::Absent, filled), BlockContents::OddHole { .. }));
        assert_eq!(judge(sparse, FULL, filled), BlockContents::Bytes { held: 4096, odd: None });
        let bare = BlockFacts { group_absent: true, ..sparse };
        assert_eq!(judge(bare, Opened::Absent, none), BlockContents::Hole);
        assert!(missing(judge(BlockFacts { last: true, ..bare }, Opened::Absent, none)));
        assert!(odd(judge(sparse, FULL, hole)), "a page beats a hole mark");
    }
}
