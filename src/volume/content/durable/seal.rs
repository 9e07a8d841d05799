//! The seal: a lower bound of the size, written when everything below it is durable (R7).

use crate::envelope::layout::Group;
use crate::envelope::{FileHeader, Seal};
use crate::volume::content::recover::SealEffort;
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// Seals a file whose contents are durable and that was written since its last seal (R7).
    /// Returns false if there is nothing to seal, or too much to look at first.
    ///
    /// # Errors
    /// `Io`; `KeyUnusable` when the keys are gone (the old seal is still a lower bound).
    pub fn seal(&self, effort: SealEffort) -> Result<bool> {
        let _gate = self.enter();
        let mut state = self.write_state();
        if self.is_read_only() || state.marks.doubt.has_failed_sync() {
            return Ok(false);
        }
        if state.marks.header.owed_move().is_some() {
            // It is being re-wrapped: the header has the time that the file is about to get.
            return Ok(false);
        }
        if !state.has_header {
            // Its marks would be kept, and synced again and again, for a seal that never comes.
            state.marks.changes.set_unsealed(false);
            return Ok(false);
        }
        self.load(&mut state)?;
        if state.marks.changes.has_contents() || !self.mend(&mut state, effort)? {
            return Ok(false);
        }
        // Unless recovery has looked through it: that was all there is to excuse.
        if !state.outdated && self.shared.awaits_consent(&state.ready()?.header) {
            return self.raise_only(&mut state, effort);
        }
        self.make_filled_durable(&mut state)?;
        if state.marks.doubt.has_failed_sync() {
            // One of the syncs until here has failed first.
            return Ok(false);
        }
        let (size, mtime) = (state.size, self.backing.mtime()?);
        let is_sealed = is_current(&state.ready()?.header, size, mtime) && !state.outdated;
        let writes = !state.ready()?.fresh && !is_sealed;
        if writes {
            self.update_both_slots(&mut state, |header| {
                header.flags.open = false;
                header.seal = Seal { size, session: self.shared.session(), mtime };
            })?;
            state.outdated = false;
        }
        state.marks.changes.set_unsealed(false);
        Ok(writes)
    }

    /// Raises the size in the seal and nothing else: a crash that nobody has agreed to believe yet
    /// would explain what is odd in the file.
    fn raise_only(&self, state: &mut State, effort: SealEffort) -> Result<bool> {
        // Recovery finds them in the pages, once the crash is believed.
        state.marks.filled.clear();
        let size = state.size;
        let raised = self.raise_to(state, size, effort)?;
        let waits = raised && state.ready()?.header.seal.size < size;
        state.marks.changes.set_unsealed(waits);
        Ok(raised)
    }

    /// Before a seal, makes the disk say of filled entries that they are durable. Until then a crash
    /// may turn their blocks back into holes, so whoever writes to the vault could take the page away
    /// after the next crash of the file.
    ///
    /// A crash before the sync leaves the old copy of each page or the new one, and both are right.
    pub(in crate::volume::content) fn make_filled_durable(&self, state: &mut State) -> Result<()> {
        if state.marks.filled.is_empty()
            || state.marks.changes.has_contents()
            || state.marks.is_unsure()
        {
            return Ok(());
        }
        let groups: Vec<_> = state.marks.filled.iter().copied().collect();
        let mut written = Ok(());
        self.backing.keep_times(&mut || {
            written = groups.iter().try_for_each(|group| self.write_filled_durable(state, *group));
            Ok(())
        })?;
        written?;
        self.sync_locked(state)?;
        state.marks.filled.clear();
        Ok(())
    }

    fn write_filled_durable(&self, state: &mut State, group: Group) -> Result<()> {
        match self.with_spill(state, group, |_, absent| absent) {
            Ok(true) | Err(VolumeError::Tampered(_) | VolumeError::Lost(_)) => Ok(()),
            Ok(false) => self.update_spill(state, group, |page| page.mark_filled_durable(group)),
            Err(error) => Err(error),
        }
    }
}

/// True if a seal would say what this header says already.
fn is_current(header: &FileHeader, size: u64, mtime: i64) -> bool {
    let seal = header.seal;
    let as_then = seal.mtime == i64::MIN || (seal.mtime == mtime && !header.flags.open);
    seal.size == size && as_then
}
