//! Durability: syncs, the roles of spill copies and header slots, and the seal (R2, R3, R7).

use std::sync::PoisonError;

use super::{Access, Content, GroupMark, Look, Marks, State};
use crate::envelope::Seal;
use crate::envelope::layout::Group;
use crate::volume::error::Result;

impl Content {
    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// `Io` when the disk failed; what was durable before still is, and the next sync writes the
    /// spill pages again.
    pub fn sync(&self) -> Result<()> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.write_owed(&mut self.write_state())?;
        // No writer is inside, so nothing changes while readers go on.
        let synced = self.backing.sync();
        let mut state = self.write_state();
        self.after_sync(&mut state, synced.is_ok());
        Ok(synced?)
    }

    /// Syncs in the middle of a change: the state lock keeps everyone else out.
    pub(super) fn sync_locked(&self, state: &mut State) -> Result<()> {
        self.write_owed(state)?;
        let synced = self.backing.sync();
        self.after_sync(state, synced.is_ok());
        Ok(synced?)
    }

    fn after_sync(&self, state: &mut State, good: bool) {
        if good {
            let generation = state.marks.generation;
            self.flip(state, generation);
            state.marks.durable_size = state.size;
            return;
        }
        // The kernel may have dropped the pages it could not write: write them again from memory,
        // to the same copies; the roles stay (R2c).
        state.marks.sync_failed = true;
        self.shared.doubt();
        let written: Vec<Group> = {
            let spills = state.spills();
            let written = spills.iter().filter(|(_, spill)| spill.written.is_some());
            written.map(|(group, _)| *group).collect()
        };
        for group in written {
            let loaded = self.with_spill(state, group, |_, _| ());
            if let Err(error) = loaded.and_then(|()| self.write_spill(state, group)) {
                log::error!("after a failed sync, a spill page could not be rewritten: {error}");
            }
        }
    }

    /// What was last updated at or before `generation` is durable now.
    fn flip(&self, state: &mut State, generation: u64) {
        // A hole that a crash left half filled stays one until it is mended.
        let residue = state.mended < state.size && self.is_excused(state);
        let spills = state.spills.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (group, spill) in spills.iter_mut().filter(|(_, s)| s.updated <= generation) {
            let Some(copy) = spill.written.take() else { continue };
            spill.durable = Some(copy);
            if let Some(page) = spill.page.as_mut().filter(|_| !residue) {
                page.settle(usize::try_from(group.blocks()).unwrap_or(0));
            }
        }
        spills.retain(|_, spill| spill.page.is_some() || !spill.is_forgettable());
        state.marks.flip(generation);
    }

    /// The point that [`Self::synced_elsewhere`] is told about after a sync of the whole filesystem.
    pub(in crate::volume) fn generation(&self) -> Option<u64> {
        let state = self.read_state();
        state.marks.is_dirty().then_some(state.marks.generation)
    }

    /// A sync of the whole backing filesystem began after `generation` was read, and succeeded.
    pub(in crate::volume) fn synced_elsewhere(&self, generation: u64) {
        let mut state = self.write_state();
        self.flip(&mut state, generation);
        if state.marks.generation == generation {
            state.marks.durable_size = state.size;
        }
    }

    /// True if something was written and not synced since.
    pub fn is_dirty(&self) -> bool {
        self.read_state().marks.is_dirty()
    }

    /// When the first change since the last sync was made.
    pub(in crate::volume) fn dirty_since(&self) -> Option<std::time::Instant> {
        self.read_state().marks.dirty_since()
    }

    /// Seals a file whose contents are durable and that was written since its last seal (R7).
    /// Returns false if there is nothing to seal, or too much to look at first.
    ///
    /// # Errors
    /// `Io`; `KeyUnusable` when the keys are gone (the old seal is still a lower bound).
    pub fn seal(&self, look: Look) -> Result<bool> {
        let _gate = self.enter();
        let mut state = self.write_state();
        if self.access == Access::ReadOnly || !state.has_header || state.marks.sync_failed {
            return Ok(false);
        }
        self.load(&mut state)?;
        if state.marks.contents_dirty || !self.mend(&mut state, look)? {
            return Ok(false);
        }
        let seal = state.ready()?.header.seal;
        let mtime = self.backing.mtime()?;
        let current = seal.size == state.size && (seal.mtime == mtime || seal.mtime == i64::MIN);
        if state.ready()?.fresh || current {
            state.marks.unsealed = false;
            state.marks.unsure = false;
            return Ok(false);
        }
        let size = state.size;
        self.update_header(&mut state, |header| {
            header.flags.open = false;
            header.seal = Seal { size, session: self.shared.session(), mtime };
        })?;
        state.marks.unsealed = false;
        state.marks.unsure = false;
        Ok(true)
    }
}

impl Marks {
    /// As [`Content::flip`], for what is known without the pages.
    pub(in crate::volume) fn flip(&mut self, generation: u64) {
        for mark in self.groups.values_mut().filter(|mark| mark.updated <= generation) {
            mark.durable = mark.written.take().or(mark.durable);
        }
        // A retired group is remembered for its number; everything else is on the disk.
        self.groups.retain(|_, mark| mark.written.is_some() || mark.durable.is_none());
        if self.header_updated <= generation
            && let Some(slot) = self.header_written.take()
        {
            self.header_durable = Some(slot);
        }
        if self.generation <= generation {
            self.rewritten.clear();
            self.contents_dirty = false;
            self.dirty_since = None;
        }
    }

    pub(in crate::volume) fn generation(&self) -> u64 {
        self.generation
    }

    /// A group's pages were cut off: nothing of it is on the disk, but its numbers go on.
    pub(super) fn retire(&mut self, group: Group, sequence: u64) {
        let updated = self.touch();
        self.groups.insert(group, GroupMark { sequence, durable: None, written: None, updated });
    }
}
