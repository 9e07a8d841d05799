//! Mends what a crash left odd; after that, nothing excuses the file any more (R7, R10, R22).
//!
//! Residue is served because a crash that is not mended yet explains it. A new seal ends that: the
//! same oddness would then be tampering. So every block is looked at before the first seal after a
//! crash, in steps, since files are long and others want to use them meanwhile.

use crate::crypto::Wiped;
use crate::envelope::EntryState;
use crate::envelope::layout::{Block, Group, PAGE, PAGE_LEN, last_block};
use crate::volume::content::read::Soundness;
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

/// How much may be looked at before a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealEffort {
    /// As much as takes a moment: a long file keeps its old seal until recovery has seen it.
    Brief,
    /// The same, but everything in a file for which a call of this session failed.
    ForFailures,
    /// Everything.
    Full,
}

/// How far the recovery of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// Below this offset everything is whole and durable.
    UpTo(u64),
    /// All of it is whole and durable, but for blocks that cannot be read if `spoiled`.
    All {
        /// Some block was lost in the crash, or is not authentic.
        spoiled: bool,
    },
}

/// How much a brief seal looks at, in bytes.
pub(in crate::volume::content) const BRIEF_BYTES: u64 = 16 * 1024 * 1024;

impl Content {
    /// Looks at the next `budget` bytes of a file that a crash may have left odd, and writes anew
    /// what is. Other users of the file wait for one such step at most.
    ///
    /// # Errors
    /// As a read and a write, but for blocks that cannot be read: these are counted.
    pub fn recover(&self, budget: u64) -> Result<Mended> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.load(&mut state)?;
        if self.is_read_only() || state.ready.is_none() {
            return Ok(Mended::All { spoiled: false });
        }
        self.sync_cut_pages(&mut state);
        self.mend_some(&mut state, budget)
    }

    /// Waits for whoever is changing the file now. What is announced later stands in the newest
    /// generation.
    pub(in crate::volume) fn wait_for_writers(&self) {
        drop(self.write_state());
    }

    /// True if a call failed, and only a look at the blocks tells what they hold.
    pub(in crate::volume) fn is_unsure(&self) -> bool {
        self.read_state().marks.is_unsure()
    }

    /// True if [`Self::recover`] has anything to do.
    pub fn needs_recovery(&self) -> bool {
        self.doubtful(&self.read_state())
    }

    /// True if nothing in the file needs a crash or a failed call to explain it any more.
    pub(in crate::volume::content) fn mend(
        &self,
        state: &mut State,
        effort: SealEffort,
    ) -> Result<bool> {
        if !self.doubtful(state) {
            return Ok(!state.spoiled);
        }
        let brief = match effort {
            SealEffort::Brief => true,
            SealEffort::ForFailures => state.marks.doubt.blocks().is_none(),
            SealEffort::Full => false,
        };
        if brief && state.size.saturating_sub(state.mended) > BRIEF_BYTES {
            return Ok(false);
        }
        let done = self.mend_some(state, u64::MAX)?;
        Ok(done == Mended::All { spoiled: false })
    }

    pub(in crate::volume::content) fn doubtful(&self, state: &State) -> bool {
        state.ready.is_some() && (state.marks.doubt.blocks().is_some() || self.is_excused(state))
    }

    fn mend_some(&self, state: &mut State, budget: u64) -> Result<Mended> {
        if !self.doubtful(state) {
            return Ok(Mended::All { spoiled: state.spoiled });
        }
        if let Some((first, end)) = state.marks.doubt.blocks() {
            self.mend_unsure(state, first, end, budget)?;
            let left = state.marks.doubt.blocks().map(|(first, _)| first.start().min(state.mended));
            if left.is_some() || !self.is_excused(state) {
                let all = Mended::All { spoiled: state.spoiled };
                return Ok(left.map_or(all, Mended::UpTo));
            }
        }
        let (from, end) = (Block::of_offset(state.mended), Block(state.size.div_ceil(PAGE)));
        let reached = self.mend_blocks(state, from, end, budget)?;
        state.mended = reached.0.saturating_mul(PAGE).min(state.size);
        if state.mended < state.size {
            return Ok(Mended::UpTo(state.mended));
        }
        // The header does not say yet that nothing excuses the file any more.
        state.outdated |= !state.excuses.is_empty();
        state.excuses.clear();
        if state.spoiled {
            self.shared.note_spoiled(state.ready()?.header.file);
        }
        // What was mended is durable, and what was not needs no excuse: a seal may follow.
        state.marks.changes.set_unsealed(true);
        Ok(Mended::All { spoiled: state.spoiled })
    }

    /// Looks at the next `budget` bytes of what a failed change may have left odd.
    fn mend_unsure(&self, state: &mut State, first: Block, end: Block, budget: u64) -> Result<()> {
        // What counts is what the disk holds, not what memory remembers of it.
        self.leave_nothing_owed(state);
        state.spills.drop_pages();
        let end = end.min(Block(state.size.div_ceil(PAGE)));
        let stop = self.mend_blocks(state, first, end, budget)?;
        // A change meanwhile that failed as well may have made the run longer.
        state.marks.doubt.looked_at(stop, end);
        // What was mended is durable, and what was not needs no excuse: a seal may follow.
        state.marks.changes.set_unsealed(true);
        Ok(())
    }

    /// Looks at `budget` bytes of the blocks from `first` on, and makes durable what it wrote anew.
    /// Returns the next block, `end` at most. Groups without any page are holes by themselves, and a
    /// sparse file has no end of them.
    fn mend_blocks(
        &self,
        state: &mut State,
        first: Block,
        end: Block,
        budget: u64,
    ) -> Result<Block> {
        let last = last_block(state.size).map_or(end, |(last, _)| last);
        let (mut at, mut left) = (first, budget.div_ceil(PAGE).max(1));
        let mut changed = false;
        while at < end && left > 0 {
            if state.sparse() && at == at.group().first_block() {
                let paged = self.next_group(at)?.map_or(end, Group::first_block);
                // The last block always has a page: it says so if not.
                at = at.max(paged.min(last));
                if at >= end {
                    break;
                }
            }
            changed |= self.mend_block(state, at)?;
            (at, left) = (Block(at.0 + 1), left - 1);
        }
        if changed {
            self.sync_locked(state)?;
        }
        Ok(at.min(end))
    }

    /// Notes a group that an earlier session filled: the disk may not say yet that this is durable.
    fn note_filled(&self, state: &mut State, group: Group) {
        let found = self.with_spill(state, group, |page, _| {
            (0..group.entries()).any(|index| page.entry(index).state == EntryState::Filled)
        });
        // A page that cannot be read is passed over: reads of its blocks say so.
        if matches!(found, Ok(true)) {
            state.marks.filled.insert(group);
        }
    }

    /// Writes a block anew if it is odd; true if anything was written.
    fn mend_block(&self, state: &mut State, block: Block) -> Result<bool> {
        let Some((last, last_length)) = last_block(state.size) else { return Ok(false) };
        let mut owed = false;
        if block == block.group().first_block() {
            owed = match self.owes_spill(state, block.group()) {
                Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) => false,
                other => other?,
            };
            self.note_filled(state, block.group());
        }
        let mut bytes = Wiped::new([0; PAGE_LEN]);
        match self.read_block(state, block, &mut bytes) {
            Ok(found) => {
                let length = if block == last { last_length } else { PAGE_LEN };
                // A cut that failed half way leaves a last page that says more than the file has.
                let ends = block != last || self.last_length(state, block)? == Some(length);
                if found == Soundness::Sound && ends {
                    return Ok(owed);
                }
                self.write_range(state, block.start(), &bytes[..length])?;
                Ok(true)
            }
            Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) => {
                state.spoiled = true;
                Ok(owed)
            }
            Err(error) => Err(error),
        }
    }
}
