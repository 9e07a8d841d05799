//! Durability: syncs, the roles of spill copies and header slots, and the seal (R2, R3, R7).

use std::sync::PoisonError;

use rustix::io::Errno;

use super::{Access, Content, Look, Marks, State};
use crate::envelope::Seal;
use crate::envelope::layout::{Group, PAGE, PAGE_LEN, Page, PageNo, in_memory};
use crate::volume::backing::contents::Durability;
use crate::volume::model::error::{Result, VolumeError};

/// Pages that are written again at a time.
const AT_ONCE: u64 = 64;

impl Content {
    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// `Io` when the disk failed; what was durable before still is, and the next sync writes again
    /// what may be lost. Handles are told by [`Self::errors`].
    pub fn sync(&self, what: Durability) -> Result<()> {
        let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let (owed, generation, what) = {
            let mut state = self.write_state();
            let owed = self.write_owed(&mut state);
            (owed, state.marks.generation, state.marks.to_sync(what))
        };
        // No writer is inside, so nothing changes while readers go on.
        let (failures, synced) = (self.shared.failed_syncs(), self.backing.sync(what));
        let mut state = self.write_state();
        state.marks.failures = failures;
        self.after_sync(&mut state, generation, synced);
        owed.and(Ok(synced?))
    }

    /// Syncs in the middle of a change: the state lock keeps everyone else out.
    ///
    /// The disk may say here that it could not keep what somebody wrote long before. That is theirs
    /// to hear; what the change needs is that a sync succeeds from here.
    pub(super) fn sync_locked(&self, state: &mut State) -> Result<()> {
        self.sync_once(state).or_else(|_| self.sync_once(state))
    }

    fn sync_once(&self, state: &mut State) -> Result<()> {
        let owed = self.write_owed(state);
        let generation = state.marks.generation;
        let synced = self.backing.sync(state.marks.to_sync(Durability::Contents));
        self.after_sync(state, generation, synced);
        owed.and(Ok(synced?))
    }

    fn after_sync(&self, state: &mut State, generation: u64, synced: Result<(), Errno>) {
        let Err(error) = synced else {
            self.flip(state, generation);
            state.prove();
            return;
        };
        // The kernel may have dropped the pages it could not write: write them again from memory,
        // to the same copies; the roles stay until that has succeeded (R2c).
        self.sync_failed(state, error);
        if let Err(error) = self.write_owed(state) {
            log::error!("after a failed sync, a page could not be rewritten: {error}");
        }
    }

    /// Nobody knows what is on the disk of what was written since the last sync.
    pub(super) fn sync_failed(&self, state: &mut State, error: Errno) {
        self.errors.record(error);
        state.marks.sync_failed();
        state.spills.sync_failed();
        self.shared.doubt();
    }

    /// Writes what could not be written when it should have been, or may have been dropped since.
    pub(super) fn write_owed(&self, state: &mut State) -> Result<()> {
        if self.access == Access::ReadOnly {
            // It cannot be opened for writing any more: of what it owes, no sync is true.
            return if state.owes_anything() { Err(VolumeError::ReadOnly) } else { Ok(()) };
        }
        self.tell_again(state)?;
        self.write_again(state)?;
        let owed = state.spills.owed();
        if owed.is_empty() && !state.marks.header.is_owed() && !state.marks.end_owed {
            return Ok(());
        }
        self.load(state)?;
        self.write_owed_header(state)?;
        owed.into_iter().try_for_each(|group| self.update_spill(state, group, |_| {}))?;
        self.write_owed_end(state)
    }

    /// Writes once more what a failed sync may have dropped, from what the kernel has in memory:
    /// the next sync would pass over pages that were not changed since. The same bytes go to the
    /// same pages, so that a crash finds each as it was or as it is. What is all zeros is a hole, or
    /// lost.
    fn write_again(&self, state: &mut State) -> Result<()> {
        if !state.marks.written_owed {
            return Ok(());
        }
        let pages = self.backing.length()? / PAGE;
        let mut buffer = vec![[0; PAGE_LEN]; in_memory(AT_ONCE)];
        self.backing.keep_times(&mut || {
            for (from, to) in state.marks.written.ranges() {
                for at in (*from..pages.min(*to)).step_by(buffer.len()) {
                    let count = in_memory((to - at).min(AT_ONCE));
                    self.renew(PageNo(at), &mut buffer[..count])?;
                }
            }
            Ok(())
        })?;
        state.marks.written_owed = false;
        Ok(())
    }

    fn renew(&self, first: PageNo, buffer: &mut [Page]) -> Result<(), Errno> {
        let got = self.backing.read_at(buffer.as_flattened_mut(), first.offset())?;
        // ext4 takes a page that it once found a place for to be there, though the write failed and
        // the place still counts as never written: pages that come anew find theirs again.
        self.backing.forget(first.offset(), got as u64)?;
        let whole = &buffer[..got / PAGE_LEN];
        for (page, bytes) in (first.0..).map(PageNo).zip(whole) {
            let hole = bytes.iter().all(|byte| *byte == 0);
            if !hole && self.backing.write_at(bytes, page.offset())? < PAGE_LEN {
                return Err(Errno::NOSPC);
            }
        }
        Ok(())
    }

    /// Before pages are forgotten: what the disk should have is written, or the file stays unsealed.
    pub(super) fn leave_nothing_owed(&self, state: &mut State) {
        if self.access == Access::ReadOnly {
            return;
        }
        if let Err(error) = self.write_owed(state) {
            log::warn!("a page could not be written and is as a crash leaves it: {error}");
            self.errors.record(match error {
                VolumeError::Io(errno) => errno,
                _ => Errno::IO,
            });
            state.marks.sync_failed = true;
            self.shared.doubt();
        }
    }

    /// What was last updated at or before `generation` is durable now, but for what is owed.
    fn flip(&self, state: &mut State, generation: u64) {
        // A hole that a crash or a failed sync left half filled stays one until it is mended.
        let residue =
            state.marks.sync_failed || (state.mended < state.size && self.is_excused(state));
        state.spills.synced(generation, |group, page| {
            if !residue {
                page.settle(group);
            }
        });
        state.marks.flip(generation, state.spills.owes_anything());
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

    /// A sync of the whole backing filesystem began after `generation` was read. It counts only if
    /// none has failed since the file was last synced by itself: that failure may have been of this
    /// file, and nobody says it a second time, except the file's own descriptor.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub(in crate::volume) fn synced_elsewhere(&self, generation: u64) -> Result<()> {
        let mut state = self.write_state();
        if state.marks.failures != self.shared.failed_syncs() {
            drop(state);
            return self.sync(Durability::Contents);
        }
        self.flip(&mut state, generation);
        if state.marks.generation == generation {
            state.prove();
        }
        Ok(())
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
        if self.access == Access::ReadOnly || state.marks.sync_failed {
            return Ok(false);
        }
        if !state.has_header {
            // Its marks would be kept, and synced again and again, for a seal that never comes.
            state.marks.unsealed = false;
            return Ok(false);
        }
        self.load(&mut state)?;
        if state.marks.contents_dirty || !self.mend(&mut state, look)? {
            return Ok(false);
        }
        let header = &state.ready()?.header;
        // Unless recovery has looked through it: that was all there is to excuse.
        if !state.outdated && self.shared.awaits_consent(header) {
            // Recovery finds them in the pages, once the crash is believed.
            state.marks.filled.clear();
            let size = state.size;
            let raised = self.raise_to(&mut state, size, look)?;
            state.marks.unsealed = raised && state.ready()?.header.seal.size < size;
            return Ok(raised);
        }
        let (seal, open) = (header.seal, header.flags.open);
        self.settle_filled(&mut state)?;
        if state.marks.sync_failed {
            // One of the syncs until here has failed first.
            return Ok(false);
        }
        let mtime = self.backing.mtime()?;
        let as_then = seal.mtime == i64::MIN || (seal.mtime == mtime && !open);
        let current = seal.size == state.size && as_then;
        if state.ready()?.fresh || (current && !state.outdated) {
            state.marks.unsealed = false;
            return Ok(false);
        }
        let size = state.size;
        self.update_both_slots(&mut state, |header| {
            header.flags.open = false;
            header.seal = Seal { size, session: self.shared.session(), mtime };
        })?;
        state.outdated = false;
        state.marks.unsealed = false;
        Ok(true)
    }

    /// Before a seal: entries that let a crash leave a block the hole that it was say on the disk,
    /// too, that its contents are durable. Else whoever writes to the vault could take the page away
    /// after the next crash of the file.
    ///
    /// A crash before the sync leaves the old copy of each page or the new one, and both are right.
    pub(super) fn settle_filled(&self, state: &mut State) -> Result<()> {
        if state.marks.filled.is_empty() || state.marks.contents_dirty || state.marks.is_unsure() {
            return Ok(());
        }
        let groups: Vec<_> = state.marks.filled.iter().copied().collect();
        let mut written = Ok(());
        self.backing.keep_times(&mut || {
            written = groups.iter().try_for_each(|group| self.write_settled(state, *group));
            Ok(())
        })?;
        written?;
        self.sync_locked(state)?;
        state.marks.filled.clear();
        Ok(())
    }

    fn write_settled(&self, state: &mut State, group: Group) -> Result<()> {
        match self.with_spill(state, group, |_, absent| absent) {
            Ok(true) | Err(VolumeError::Tampered(_) | VolumeError::Lost(_)) => Ok(()),
            Ok(false) => self.update_spill(state, group, |page| page.settle(group)),
            Err(error) => Err(error),
        }
    }
}

impl State {
    fn owes_anything(&self) -> bool {
        self.marks.owes_anything() || self.spills.owes_anything()
    }
}

impl Marks {
    fn owes_anything(&self) -> bool {
        self.header.is_owed()
            || self.end_owed
            || self.written_owed
            || self.untold.is_some()
            || self.groups.values().any(|roles| roles.copies().is_owed())
    }

    /// What a sync has to make durable of which `what` is asked for.
    fn to_sync(&self, what: Durability) -> Durability {
        if self.header.moves_time() { Durability::Everything } else { what }
    }

    /// As [`Content::flip`], for what is known without the pages. `owed`: something of the file is.
    pub(in crate::volume) fn flip(&mut self, generation: u64, owed: bool) {
        for roles in self.groups.values_mut() {
            roles.copies_mut().synced(generation);
        }
        // A retired group is remembered for its number; everything else is on the disk.
        self.groups.retain(|_, roles| !roles.is_forgettable());
        self.header.synced(generation);
        if self.generation <= generation && !owed && !self.owes_anything() {
            self.rewritten.clear();
            self.kept.release();
            if !self.is_unsure() {
                self.synced.add(&self.written);
            }
            self.written.clear();
            self.contents_dirty = false;
            self.dirty_since = None;
        }
    }

    /// A sync failed: everything written since the last one is written again before one counts.
    pub(in crate::volume) fn sync_failed(&mut self) {
        self.sync_failed = true;
        self.written_owed = !self.written.is_empty();
        self.header.sync_failed();
        for roles in self.groups.values_mut() {
            roles.copies_mut().sync_failed();
        }
    }

    /// True if a sync of the whole filesystem has failed since the file was last synced by itself.
    pub(in crate::volume) fn were_passed_over(&self, failures: u64) -> bool {
        self.failures != failures
    }

    /// A sync covered the file after its last close.
    pub(in crate::volume) fn prove_parked(&mut self) {
        self.proven_size = self.parked_size;
    }

    pub(in crate::volume) fn generation(&self) -> u64 {
        self.generation
    }
}
