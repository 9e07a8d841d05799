//! Raising a seal and nothing else: what the header excuses, and by which crash, stays (R7).

use crate::crypto::Wiped;
use crate::envelope::Seal;
use crate::envelope::layout::{Block, PAGE, PAGE_LEN, last_block};
use crate::volume::content::read::Soundness;
use crate::volume::content::recover::{BRIEF_BYTES, SealEffort};
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Since when something durable stands above the seal.
    pub(in crate::volume) fn above_seal_since(&self) -> Option<std::time::Instant> {
        self.read_state().marks.extent.above_seal_since()
    }

    /// Raises the seal of a file that is never left alone to what of it is durable: a log that is
    /// synced with every line would stand above its seal for ever. False if there is nothing to raise.
    ///
    /// # Errors
    /// `Io`: the old seal is still a lower bound.
    pub fn raise_seal(&self) -> Result<bool> {
        let _gate = self.enter();
        let mut state = self.write_state();
        let since = state.marks.extent.above_seal_since();
        state.marks.extent.set_above_seal_since(None);
        let doubtful = self.doubtful(&state) || state.marks.is_unsure() || state.spoiled;
        if self.is_read_only() || doubtful || state.ready.is_none() {
            return Ok(false);
        }
        let size = state.marks.extent.proven();
        let raised = self.raise_to(&mut state, size, SealEffort::Brief)?;
        if raised && state.ready()?.header.seal.size < size {
            state.marks.extent.set_above_seal_since(since);
        }
        Ok(raised)
    }

    /// Raises the seal to `size`, all of which is durable, or a step on the way. False if nothing was
    /// raised.
    ///
    /// What was written since the sync needs the excuse that the file has, from being made in this
    /// session or from its announcement, and both go by the session and the flag: they stay. So does
    /// what a crash excuses that nobody has agreed to believe yet. But zeros that it left below the new
    /// seal would not be excused any more. So after such a crash the file is looked at between the two
    /// seals, and stays as it is if anything there is odd.
    ///
    /// *Crash*: what the new seal covers was durable before it is written (R7), so either header is
    /// right; a cut lowers it first, as ever.
    pub(in crate::volume::content) fn raise_to(
        &self,
        state: &mut State,
        size: u64,
        effort: SealEffort,
    ) -> Result<bool> {
        let ready = state.ready()?;
        let (sealed, mut size) = (ready.header.seal.size, size);
        if ready.fresh || size <= sealed {
            return Ok(false);
        }
        if self.shared.awaits_consent(&ready.header) {
            if effort == SealEffort::Brief {
                size = size.min((sealed + BRIEF_BYTES) / PAGE * PAGE);
            }
            if !self.is_sound(state, sealed, size)? {
                return Ok(false);
            }
        }
        let mtime = self.backing.mtime()?;
        self.update_both_slots(state, |header| {
            header.seal = Seal { size, mtime, ..header.seal };
        })?;
        Ok(true)
    }

    /// True if nothing is odd between these offsets, whatever would explain it.
    fn is_sound(&self, state: &State, from: u64, to: u64) -> Result<bool> {
        let mut bytes = Wiped::new([0; PAGE_LEN]);
        for block in (from / PAGE..to.div_ceil(PAGE)).map(Block) {
            match self.read_block(state, block, &mut bytes) {
                Ok(Soundness::Sound) => {}
                Ok(Soundness::Residue) | Err(VolumeError::Lost(_) | VolumeError::Tampered(_)) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        match last_block(state.size).filter(|(last, _)| last.start() < to) {
            Some((last, length)) => Ok(self.last_length(state, last)? == Some(length)),
            None => Ok(true),
        }
    }
}
