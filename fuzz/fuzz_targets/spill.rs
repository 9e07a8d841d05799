//! Spill pages: what a decrypted one says, and any changes of one against a plain list.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::envelope::layout::{DATA_PAYLOAD, FIRST_TAIL_ROOM, Group, TAIL};
use kmsfs::envelope::{Entry, EntryState, SpillPage};
use kmsfs_fuzz::within;
use libfuzzer_sys::fuzz_target;

/// A page, its copy, and what a test compares.
const MEMORY: usize = 8 * DATA_PAYLOAD;

enum Change<'a> {
    Set { index: u8, state: u8, binding: [u8; 8], tail: &'a [u8] },
    Settle,
    Sequence(u64),
}

impl<'a> Arbitrary<'a> for Change<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match input.arbitrary::<u8>()? % 8 {
            0 => Self::Settle,
            1 => Self::Sequence(input.arbitrary()?),
            _ => Self::Set {
                index: input.arbitrary()?,
                state: input.arbitrary()?,
                binding: input.arbitrary()?,
                tail: input.arbitrary()?,
            },
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let group = Group(u64::from(first % 3));
    any_bytes(group, rest);
    let mut changes = Unstructured::new(rest);
    if let Ok(changes) = Vec::<Change<'_>>::arbitrary(&mut changes) {
        like_a_list(group, &changes);
    }
});

fn blocks(group: Group) -> usize {
    usize::try_from(group.blocks()).expect("a group is small")
}

fn room(group: Group, index: usize) -> usize {
    if group.0 == 0 && index == 0 { FIRST_TAIL_ROOM } else { TAIL }
}

fn any_bytes(group: Group, bytes: &[u8]) {
    let mut plain = [0; DATA_PAYLOAD];
    plain.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    let page = within(MEMORY, || SpillPage::from_plain(group, &plain));
    assert_eq!(page.as_bytes(), plain);
    // What can be read of it, written into an empty page, reads the same.
    let mut copy = SpillPage::empty(group);
    copy.set_sequence(page.sequence());
    for index in 0..blocks(group) {
        let Entry { state, binding, tail } = page.entry(index);
        let has_tail = matches!(state, EntryState::Present | EntryState::Filled);
        assert_eq!(has_tail, !tail.is_empty());
        assert!(tail.len() <= room(group, index));
        copy.set(index, state, binding, tail);
    }
    for index in 0..blocks(group) {
        assert_eq!(copy.entry(index), page.entry(index));
    }
    for index in blocks(group)..=usize::from(u8::MAX) {
        assert!(page.entry(index).tail.len() <= TAIL, "behind the last entry");
    }
    assert_eq!(copy.sequence(), page.sequence());
    let mut marked = page.clone();
    marked.mark_filled_durable(group);
    let once = marked.clone();
    marked.mark_filled_durable(group);
    assert_eq!(marked, once);
    for index in 0..blocks(group) {
        let (before, after) = (page.entry(index), marked.entry(index));
        assert_ne!(after.state, EntryState::Filled);
        assert_eq!((before.tail, before.binding), (after.tail, after.binding));
        let same = before.state == after.state;
        assert!(same || (before.state, after.state) == (EntryState::Filled, EntryState::Present));
    }
}

fn like_a_list(group: Group, changes: &[Change<'_>]) {
    const NONE: (EntryState, [u8; 8], &[u8]) = (EntryState::Absent, [0; 8], &[]);
    let mut page = SpillPage::empty(group);
    let mut model = vec![NONE; blocks(group)];
    let mut number = 0;
    for change in changes {
        match change {
            Change::Set { index, state, binding, tail } => {
                let index = usize::from(*index) % blocks(group);
                let tail = tail.get(..tail.len().min(room(group, index))).unwrap_or_default();
                let entry = match (state % 4, tail) {
                    (1, _) => (EntryState::Hole, *binding, &[][..]),
                    (2, [_, ..]) => (EntryState::Present, *binding, tail),
                    (3, [_, ..]) => (EntryState::Filled, *binding, tail),
                    _ => NONE,
                };
                page.set(index, entry.0, entry.1, entry.2);
                model[index] = entry;
            }
            Change::Settle => {
                page.mark_filled_durable(group);
                for entry in model.iter_mut().filter(|entry| entry.0 == EntryState::Filled) {
                    entry.0 = EntryState::Present;
                }
            }
            Change::Sequence(sequence) => {
                page.set_sequence(*sequence);
                number = *sequence;
            }
        }
    }
    for (index, (state, binding, tail)) in model.iter().copied().enumerate() {
        assert_eq!(page.entry(index), Entry { state, binding, tail });
    }
    assert_eq!(page.sequence(), number);
    assert_eq!(page.is_empty(), model.iter().all(|entry| *entry == NONE));
}
