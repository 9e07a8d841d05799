//! Syncs: what is owed goes out first, and what was written before is durable then (R2, R3).

use rustix::io::Errno;

use crate::envelope::layout::{PAGE, PAGE_LEN, Page, PageNo, in_memory};
use crate::volume::backing::contents::Durability;
use crate::volume::content::{Content, State};
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
        self.with_journal_room(|| self.sync_alone(what))
    }

    pub(in crate::volume::content) fn sync_alone(&self, what: Durability) -> Result<()> {
        let _gate = self.gate.write();
        let (owed, generation, what) = {
            let mut state = self.write_state();
            let owed = self.write_owed(&mut state);
            (owed, state.marks.generation(), state.marks.to_sync(what))
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
    pub(in crate::volume::content) fn sync_locked(&self, state: &mut State) -> Result<()> {
        self.sync_once(state).or_else(|_| self.sync_once(state))
    }

    fn sync_once(&self, state: &mut State) -> Result<()> {
        let owed = self.write_owed(state);
        let generation = state.marks.generation();
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
    pub(in crate::volume::content) fn sync_failed(&self, state: &mut State, error: Errno) {
        self.errors.record(error);
        state.marks.sync_failed();
        state.spills.sync_failed();
        self.shared.doubt();
    }

    /// Writes what could not be written when it should have been, or may have been dropped since.
    pub(in crate::volume::content) fn write_owed(&self, state: &mut State) -> Result<()> {
        if self.is_read_only() {
            // It cannot be opened for writing any more: no sync is true of what it owes.
            return if state.owes_anything() { Err(VolumeError::ReadOnly) } else { Ok(()) };
        }
        self.write_owed_length(state)?;
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
        if !state.marks.pages.is_owed() {
            return Ok(());
        }
        let pages = self.backing.length()? / PAGE;
        let mut buffer = vec![[0; PAGE_LEN]; in_memory(AT_ONCE)];
        self.backing.keep_times(&mut || {
            for (from, to) in state.marks.pages.ranges() {
                for at in (*from..pages.min(*to)).step_by(buffer.len()) {
                    let count = in_memory((to - at).min(AT_ONCE));
                    self.renew(PageNo(at), &mut buffer[..count])?;
                }
            }
            Ok(())
        })?;
        state.marks.pages.written_again();
        Ok(())
    }

    fn renew(&self, first: PageNo, buffer: &mut [Page]) -> Result<(), Errno> {
        let got = self.backing.read_at(buffer.as_flattened_mut(), first.offset())?;
        // ext4 believes that a page is there once it has allocated a block for it, although the write
        // failed and the block counts as unwritten. Pages that are written anew use those blocks.
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

    /// Before pages are forgotten, writes what the disk should have; if that fails, the file stays
    /// unsealed.
    pub(in crate::volume::content) fn leave_nothing_owed(&self, state: &mut State) {
        if self.is_read_only() {
            return;
        }
        if let Err(error) = self.write_owed(state) {
            log::warn!("a page could not be written and is as a crash leaves it: {error}");
            self.errors.record(match error {
                VolumeError::Io(errno) => errno,
                _ => Errno::IO,
            });
            state.marks.doubt.sync_failed();
            self.shared.doubt();
        }
    }

    /// What was last updated at or before `generation` is durable now, except what is owed.
    fn flip(&self, state: &mut State, generation: u64) {
        // A hole that a crash or a failed sync left half filled stays one until it is mended.
        let residue = state.marks.doubt.has_failed_sync()
            || (state.mended < state.size && self.is_excused(state));
        state.spills.synced(generation, |group, page| {
            if !residue {
                page.mark_filled_durable(group);
            }
        });
        state.marks.flip(generation, state.spills.owes_anything());
    }

    /// Before a sync of the whole filesystem, returns the generation for [`Self::synced_elsewhere`];
    /// `None` for a file that has nothing to sync.
    pub(in crate::volume) fn before_sync(&self) -> Option<u64> {
        let mut state = self.write_state();
        if !state.marks.is_dirty() {
            return None;
        }
        if let Err(error) = self.write_owed(&mut state) {
            log::error!("a page could not be written again, and waits for the next sync: {error}");
        }
        let size = state.size;
        Some(state.marks.begin_whole_sync(size))
    }

    /// A sync of the whole backing filesystem began after `generation` was read. It counts only if
    /// none has failed since the file was last synced by itself: that failure may have been of this
    /// file, and nobody says it a second time, except the file's own descriptor.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub(in crate::volume) fn synced_elsewhere(&self, generation: u64) -> Result<()> {
        let mut state = self.write_state();
        if state.marks.were_passed_over(self.shared.failed_syncs()) {
            drop(state);
            return self.sync(Durability::Contents);
        }
        self.flip(&mut state, generation);
        if state.marks.generation() == generation {
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
        self.read_state().marks.changes.dirty_since()
    }
}

impl State {
    pub(in crate::volume::content) fn owes_anything(&self) -> bool {
        self.marks.owes_anything() || self.spills.owes_anything()
    }
}
