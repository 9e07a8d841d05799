//! Durability: syncs, the roles of spill copies and header slots, and the seal (R2, R3, R7).

use std::sync::PoisonError;

use super::cache::Roles;
use super::{Access, Content, Look, Marks, State};
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
        let (owed, generation) = {
            let mut state = self.write_state();
            (self.write_owed(&mut state), state.marks.generation)
        };
        // No writer is inside, so nothing changes while readers go on.
        let synced = self.backing.sync();
        self.after_sync(&mut self.write_state(), generation, synced.is_ok());
        owed.and(Ok(synced?))
    }

    /// Syncs in the middle of a change: the state lock keeps everyone else out.
    pub(super) fn sync_locked(&self, state: &mut State) -> Result<()> {
        let owed = self.write_owed(state);
        let (generation, synced) = (state.marks.generation, self.backing.sync());
        self.after_sync(state, generation, synced.is_ok());
        owed.and(Ok(synced?))
    }

    fn after_sync(&self, state: &mut State, generation: u64, good: bool) {
        if good {
            self.flip(state, generation);
            state.marks.durable_size = state.size;
            return;
        }
        // The kernel may have dropped the pages it could not write: write them again from memory,
        // to the same copies; the roles stay until that has succeeded (R2c).
        self.sync_failed(state);
        if let Err(error) = self.write_owed(state) {
            log::error!("after a failed sync, a page could not be rewritten: {error}");
        }
    }

    /// Nobody knows what is on the disk of what was written since the last sync.
    fn sync_failed(&self, state: &mut State) {
        state.marks.sync_failed();
        for spill in state.spills.lock().values_mut() {
            spill.roles.owed |= spill.roles.written.is_some();
        }
        self.shared.doubt();
    }

    /// Writes what could not be written when it should have been, or may have been dropped since.
    pub(super) fn write_owed(&self, state: &mut State) -> Result<()> {
        self.tell_again(state)?;
        let mut owed: Vec<Group> = {
            let groups = state.spills.lock();
            let elsewhere =
                state.marks.groups.iter().filter(|(group, _)| !groups.contains_key(group));
            let here = groups.iter().map(|(group, spill)| (group, &spill.roles));
            here.chain(elsewhere).filter(|(_, roles)| roles.owed).map(|(group, _)| *group).collect()
        };
        if owed.is_empty() && !state.marks.header_owed && !state.marks.end_owed {
            return Ok(());
        }
        self.load(state)?;
        self.write_owed_header(state)?;
        owed.sort_unstable();
        owed.into_iter().try_for_each(|group| self.update_spill(state, group, |_| {}))?;
        self.write_owed_end(state)
    }

    /// Before pages are forgotten: what the disk should have is written, or the file stays unsealed.
    pub(super) fn leave_nothing_owed(&self, state: &mut State) {
        if self.access == Access::ReadOnly {
            return;
        }
        if let Err(error) = self.write_owed(state) {
            log::warn!("a page could not be written and is as a crash leaves it: {error}");
            state.marks.sync_failed = true;
            self.shared.doubt();
        }
    }

    /// What was last updated at or before `generation` is durable now, but for what is owed.
    fn flip(&self, state: &mut State, generation: u64) {
        // A hole that a crash or a failed sync left half filled stays one until it is mended.
        let residue =
            state.marks.sync_failed || (state.mended < state.size && self.is_excused(state));
        let mut groups = state.spills.lock();
        let due = |roles: &Roles| roles.updated <= generation && !roles.owed;
        for (group, spill) in groups.iter_mut().filter(|(_, spill)| due(&spill.roles)) {
            if !spill.roles.flip() {
                continue;
            }
            if let Some(cached) = spill.page.as_mut().filter(|_| !residue) {
                cached.page.settle(usize::try_from(group.blocks()).unwrap_or(0));
            }
        }
        groups.retain(|_, spill| spill.page.is_some() || !spill.roles.is_forgettable());
        let owed = groups.values().any(|spill| spill.roles.owed);
        drop(groups);
        state.marks.flip(generation, owed);
    }

    /// Before a sync of the whole filesystem: the point that [`Self::synced_elsewhere`] is told
    /// about if it succeeds; `None` for a file that has nothing to sync.
    pub(in crate::volume) fn before_sync(&self) -> Option<u64> {
        let mut state = self.write_state();
        if !state.marks.is_dirty() {
            return None;
        }
        if let Err(error) = self.write_owed(&mut state) {
            log::error!("a page could not be written again, and waits for the next sync: {error}");
        }
        Some(state.marks.generation)
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
    /// As [`Content::flip`], for what is known without the pages. `owed`: something of the file is.
    pub(in crate::volume) fn flip(&mut self, generation: u64, owed: bool) {
        for roles in self.groups.values_mut() {
            if roles.updated <= generation && !roles.owed {
                roles.flip();
            }
        }
        // A retired group is remembered for its number; everything else is on the disk.
        self.groups.retain(|_, roles| !roles.is_forgettable());
        if self.header_updated <= generation
            && !self.header_owed
            && let Some(slot) = self.header_written.take()
        {
            self.header_durable = Some(slot);
            self.header_unsure = false;
        }
        let owed = owed
            || self.header_owed
            || self.end_owed
            || self.untold.is_some()
            || self.groups.values().any(|roles| roles.owed);
        if self.generation <= generation && !owed {
            self.rewritten.clear();
            self.contents_dirty = false;
            self.dirty_since = None;
        }
    }

    /// A sync failed: everything written since the last one is written again before one counts.
    pub(in crate::volume) fn sync_failed(&mut self) {
        self.sync_failed = true;
        self.header_owed |= self.header_written.is_some();
        for roles in self.groups.values_mut() {
            roles.owed |= roles.written.is_some();
        }
    }

    pub(in crate::volume) fn generation(&self) -> u64 {
        self.generation
    }

    /// A group's pages were cut off: nothing of it is on the disk, but its numbers go on.
    pub(super) fn retire(&mut self, group: Group, sequence: u64) {
        let updated = self.touch();
        self.groups.insert(group, Roles { sequence, updated, ..Roles::default() });
    }
}
