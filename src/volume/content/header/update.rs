//! Changing the header of an open file, slot by slot (R3; FORMAT section 11.2).

use rustix::io::Errno;

use super::slots::offset_of;
use crate::envelope::layout::Copy2;
use crate::envelope::{FileHeader, RECORD_LEN, Recipients};
use crate::volume::backing::contents::MTIME_STEP;
use crate::volume::content::pages::is_untouched;
use crate::volume::content::{Content, State};
use crate::volume::model::error::{Result, VolumeError};

/// Where a changed header goes.
#[derive(Debug, Clone, Copy)]
enum Slots {
    /// Into the slot that is not durable.
    Spare,
    Both,
}

impl Content {
    /// Changes the header: in memory while it is fresh, else in the slot that is not durable (R3).
    pub(in crate::volume::content) fn update_header(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        self.update_slots(state, Slots::Spare, change)
    }

    /// Changes the header in both slots, so that no damage of one brings an older one back. After a
    /// crash each slot has the old header or the new one, and both are good; a page is written whole.
    pub(in crate::volume::content) fn update_both_slots(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        self.update_slots(state, Slots::Both, change)
    }

    /// The old header goes only when a re-wrap has moved the time, durably.
    fn update_slots(
        &self,
        state: &mut State,
        slots: Slots,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        self.move_owed_time(state)?;
        if state.marks.header.moves_time() {
            self.sync_locked(state)?;
        }
        self.put_slots(state, slots, change)
    }

    fn put_slots(
        &self,
        state: &mut State,
        slots: Slots,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        let ready = state.ready.as_mut().ok_or(VolumeError::Lost("file header"))?;
        if ready.fresh {
            change(&mut ready.header);
            return Ok(());
        }
        let mut header = ready.header.clone();
        change(&mut header);
        header.sequence += 1;
        let slot = state.marks.header.target();
        let bytes = header.encode(&ready.keys);
        let written = match slots {
            Slots::Spare => self.write_slot(slot, &bytes),
            Slots::Both => self.write_area(&[bytes, bytes].concat(), 0),
        };
        if let Err(error) = written {
            let both = matches!(slots, Slots::Both);
            if both {
                // Whatever arrived has this number: the next header must have a higher one.
                ready.header.sequence = header.sequence;
            }
            if both || !is_untouched(&error) {
                // It may have arrived all the same, and say what is not true: a seal, for example.
                let generation = state.marks.touch();
                state.marks.header.in_doubt(generation);
            }
            return Err(error);
        }
        ready.header = header;
        let generation = state.marks.touch();
        state.marks.header.wrote(generation);
        Ok(())
    }

    /// Writes the header again after a failure that may have left another one on the disk: to the same
    /// slot, so it waits for nothing.
    pub(in crate::volume::content) fn write_owed_header(&self, state: &mut State) -> Result<()> {
        match state.marks.header.is_owed() {
            true => self.put_slots(state, Slots::Spare, |_| {}),
            false => Ok(()),
        }
    }

    /// Replaces the wraps of the file key, in the slot that is not durable. Returns false if
    /// `change` leaves them as they are, or the file has no header.
    ///
    /// After it the backing mtime moves ([`Self::move_time`]), so that a backup that goes by size and
    /// time takes the file along before the old wrap is worth nothing. *Order*: the new header, a
    /// durable record of the time to show, the time, a sync, and only then is the old slot written over.
    /// *Crash*: before the sync the old slot is there still, so the re-wrap comes again and moves the
    /// time ([`Self::mark_rewrapped`]); after it, the time is on the disk. Whichever time is there has
    /// its record. A copy that is made meanwhile has the old time, and is made again, or the new time,
    /// and with it the new header.
    ///
    /// # Errors
    /// As a write, and those of `change`.
    pub(in crate::volume) fn rewrap(
        &self,
        change: impl FnOnce(&FileHeader) -> Result<Option<Recipients>>,
    ) -> Result<bool> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.must_be_writable()?;
        self.load(&mut state)?;
        let Some(ready) = &state.ready else { return Ok(false) };
        let Some(recipients) = change(&ready.header)? else { return Ok(false) };
        self.move_owed_time(&mut state)?;
        let mtime = self.backing.mtime()?;
        self.update_slots(&mut state, Slots::Spare, |header| {
            header.recipients = recipients;
            // What was sealed is sealed still.
            if header.seal.mtime == mtime {
                header.seal.mtime = mtime.saturating_add(MTIME_STEP);
            }
        })?;
        self.owe_move(&mut state)?;
        Ok(true)
    }

    /// Lets the time of a file move whose newer slot a crashed re-wrap has written: whether it reached
    /// the disk is not known.
    ///
    /// # Errors
    /// As a write.
    pub(in crate::volume) fn mark_rewrapped(&self) -> Result<()> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.must_be_writable()?;
        self.load(&mut state)?;
        self.owe_move(&mut state)
    }

    fn owe_move(&self, state: &mut State) -> Result<()> {
        if state.ready.as_ref().is_some_and(|ready| !ready.fresh) {
            state.marks.header.owe_move(self.backing.mtime()?);
        }
        Ok(())
    }

    /// The backing mtime that [`Self::move_time`] will move: what to show then must be known first.
    pub(in crate::volume) fn owed_move(&self) -> Option<i64> {
        self.read_state().marks.header.owed_move()
    }

    /// Moves the backing mtime of a file that was re-wrapped.
    ///
    /// # Errors
    /// As a write.
    pub(in crate::volume) fn move_time(&self) -> Result<()> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.must_be_writable()?;
        self.move_owed_time(&mut state)
    }

    fn move_owed_time(&self, state: &mut State) -> Result<()> {
        let Some(mtime) = state.marks.header.owed_move() else { return Ok(()) };
        // If it is another one by now, no copy with the old header has that.
        if self.backing.mtime()? == mtime {
            self.backing.move_mtime()?;
        }
        let generation = state.marks.touch();
        state.marks.header.moved_time(generation);
        Ok(())
    }

    /// Writes the newest header into the slot that does not have it yet: after a re-wrap was
    /// synced, nothing on the disk opens with the old material any more.
    ///
    /// # Errors
    /// As a write.
    pub(in crate::volume) fn scrub(&self) -> Result<()> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.must_be_writable()?;
        self.load(&mut state)?;
        if state.ready.is_none() {
            return Ok(());
        }
        self.update_header(&mut state, |_| {})
    }

    pub(super) fn write_slot(&self, slot: Copy2, bytes: &[u8; RECORD_LEN]) -> Result<()> {
        self.write_area(bytes, offset_of(slot))
    }

    fn write_area(&self, bytes: &[u8], offset: u64) -> Result<()> {
        Ok(self.backing.keep_times(&mut || self.write_header_bytes(bytes, offset))?)
    }

    fn write_header_bytes(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        match self.backing.write_at(bytes, offset)? {
            0 => Err(Errno::NOSPC),
            written if written == bytes.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}
