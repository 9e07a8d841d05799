//! Files that cannot be written, after a crash: whether anything in them needs it as an excuse.

use rustix::io::Errno;

use super::Mended;
use crate::envelope::EntryState;
use crate::envelope::layout::{Block, Group, PAGE, PAGE_LEN, last_block};
use crate::volume::content::read::Soundness;
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Looks at the next `budget` bytes of a file that a crash may have left odd, as [`Self::recover`]
    /// does, and writes nothing. If all of it is sealed and whole, the file needs no excuse any more,
    /// and its header need not say so: it is the crash that is forgotten.
    ///
    /// What is found may be in the system's memory only, so a sync comes before that counts.
    ///
    /// # Errors
    /// `Io(PERM)` if anything is to be written: the file keeps its excuse. As a read.
    pub(in crate::volume) fn examine(&self, budget: u64) -> Result<Mended> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.load(&mut state)?;
        if !self.doubtful(&state) {
            return Ok(Mended::All { spoiled: state.spoiled });
        }
        let header = &state.ready()?.header;
        let sealed = !header.flags.open && header.seal.size == state.size;
        if !sealed || state.marks.is_unsure() {
            return Err(UNFINISHED);
        }
        let end = Block(state.size.div_ceil(PAGE));
        state.mended = self.whole_until(&state, end, budget)?.start().min(state.size);
        if state.mended < state.size {
            return Ok(Mended::UpTo(state.mended));
        }
        state.excuses.clear();
        Ok(Mended::All { spoiled: false })
    }

    /// The block up to which `budget` bytes from where this came last are whole.
    fn whole_until(&self, state: &State, end: Block, budget: u64) -> Result<Block> {
        let (mut at, mut left) = (Block::of_offset(state.mended), budget.div_ceil(PAGE).max(1));
        let Some((last, length)) = last_block(state.size) else { return Ok(end) };
        while at < end && left > 0 {
            let group = at.group();
            if at == group.first_block() {
                // Groups without any page are holes by themselves.
                let paged = if state.sparse() { self.next_group(at)? } else { Some(group) };
                at = at.max(paged.map_or(end, Group::first_block).min(last));
                self.is_group_whole(state, at.group())?;
            }
            let mut bytes = zeroize::Zeroizing::new([0; PAGE_LEN]);
            let found = self.read_block(state, at, &mut bytes)?;
            let ends = at != last || self.last_length(state, at)? == Some(length);
            if found != Soundness::Sound || !ends {
                return Err(UNFINISHED);
            }
            (at, left) = (Block(at.0 + 1), left - 1);
        }
        Ok(at.min(end))
    }

    /// Both copies of its spill page can be read, and no entry waits for a sync to be believed.
    fn is_group_whole(&self, state: &State, group: Group) -> Result<()> {
        let whole = self.read_copies(state, group)?.1 == 0;
        let waits = self.with_spill(state, group, |page, _| {
            (0..group.entries()).any(|index| page.entry(index).state == EntryState::Filled)
        })?;
        if whole && !waits { Ok(()) } else { Err(UNFINISHED) }
    }
}

/// Something is to be written, and cannot be.
const UNFINISHED: VolumeError = VolumeError::Io(Errno::PERM);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::envelope::{Intents, SessionWord, Unrecovered};
    use crate::volume::backing::contents::Durability;
    use crate::volume::backing::memory::MemoryFile;
    use crate::volume::content::tests::open_in;
    use crate::volume::content::{SealEffort, Shared};

    fn after_the_crash(file: &Arc<MemoryFile>) -> Content {
        let crash = Unrecovered {
            word: SessionWord::new(1, 1),
            counted: false,
            withheld: false,
            span: (0, i64::MAX),
            intents: Intents::all(),
            listed: false,
            waiting: None,
        };
        open_in(file, Shared::in_session(SessionWord::new(2, 2), vec![crash]))
    }

    #[test]
    fn what_is_sealed_and_whole_needs_no_excuse_and_anything_else_keeps_it() {
        let file = Arc::new(MemoryFile::default());
        let content = open_in(&file, Shared::in_session(SessionWord::new(1, 1), Vec::new()));
        content.write(0, &vec![1; 500_000]).unwrap();
        assert!(content.freeze().unwrap());
        let bytes = file.bytes();
        let refused = |done: Result<()>| {
            assert!(matches!(done, Err(VolumeError::Io(Errno::PERM))), "{done:?}");
        };
        refused(content.write(0, b"x").map(drop));
        refused(content.truncate(0));
        refused(content.punch(0, 8192));
        assert!(!content.seal(SealEffort::Full).unwrap() && file.bytes() == bytes);
        content.sync(Durability::Everything).unwrap();

        let later = after_the_crash(&file);
        assert!(later.needs_recovery());
        assert_eq!(later.examine(4096).unwrap(), Mended::UpTo(4096));
        assert_eq!(later.examine(u64::MAX).unwrap(), Mended::All { spoiled: false });
        assert!(!later.needs_recovery() && file.bytes() == bytes);

        content.thaw(|| Ok(())).unwrap();
        content.write(500_000, &[2; 10_000]).unwrap();
        let later = after_the_crash(&file);
        refused(later.examine(u64::MAX).map(drop));
        assert!(later.needs_recovery(), "it is longer than its seal says");
        assert!(later.freeze().unwrap(), "a seal that may be written mends it first");
        assert!(!later.needs_recovery());
    }
}
