//! The header slots of a file: read, made, changed (FORMAT sections 3 and 11.2).

use rustix::io::Errno;

use super::change::Change;
use super::write::is_untouched;
use super::{Access, Content, Ready, Slot, State};
use crate::envelope::layout::{HEADER_AREA, PAGE, PAGE_LEN, backing_len};
use crate::envelope::{
    EnvelopeError, FileHeader, FileKeys, HeaderFlags, RECORD_LEN, Recipients, Seal,
    UnverifiedHeader,
};
use crate::volume::backing::contents::{MTIME_STEP, is_blank};
use crate::volume::model::error::{Result, VolumeError};

const WHAT: &str = "file header";

/// Where a changed header goes.
#[derive(Debug, Clone, Copy)]
enum Slots {
    /// Into the slot that is not durable.
    Spare,
    /// The same, and the backing mtime moves.
    Rewrapped,
    Both,
}

impl Content {
    /// Loads keys and header of a file that has one and whose keys are not here.
    pub(super) fn load(&self, state: &mut State) -> Result<()> {
        if state.cut_short {
            return Err(VolumeError::Tampered("file length"));
        }
        if state.ready.is_some() || !state.has_header {
            return Ok(());
        }
        let mut page = [0; PAGE_LEN];
        let got = self.backing.read_at(&mut page, 0)?;
        let area = page.first_chunk::<HEADER_AREA>().expect("page 0 begins with the slots");
        if got < HEADER_AREA || area.iter().all(|b| *b == 0) {
            return self.without_header(state);
        }
        let slots = [Slot::A, Slot::B].map(|slot| parse_slot(area, slot));
        let (slot, keys, mut header) = self.choose(&slots)?;
        let spare = match (slot, slots) {
            (Slot::A, [_, spare]) | (Slot::B, [spare, _]) => spare,
        };
        let spare_ok = spare.is_ok_and(|spare| spare.verify(&keys).is_ok());
        let both = spare_ok || self.is_half_a_header(&header, bytes_of(area, slot.other()));
        (state.excuses, state.mended) = self.shared.excuses(&header, both);
        if state.marks.header_durable.is_none() && state.marks.header_written.is_none() {
            state.marks.header_durable = Some(slot);
        }
        if !spare_ok {
            log::warn!("file {}: a header slot is damaged; the other one is good", header.file);
            // While something excuses the file all the same, recovery is what ends that.
            if state.excuses.is_empty() {
                self.replace_slot(state, slot.other(), &mut header, &keys);
            }
        }
        let cipher = keys.unit_cipher();
        state.ready = Some(Ready { header, keys, cipher, fresh: false });
        Ok(())
    }

    /// Writes the slot that is damaged again. What it said is not known: it may have been that the
    /// file is sealed and mended, so the header that replaces it says that. A crash leaves the slot
    /// as it was or whole.
    fn replace_slot(
        &self,
        state: &mut State,
        slot: Slot,
        header: &mut FileHeader,
        keys: &FileKeys,
    ) {
        if self.access == Access::ReadOnly {
            return;
        }
        let mut sealed = header.clone();
        sealed.flags.open = false;
        sealed.seal.session = self.shared.session();
        sealed.sequence += 1;
        match self.write_slot(slot, &sealed.encode(keys)) {
            Ok(()) => {
                *header = sealed;
                state.marks.header_written = Some(slot);
                state.marks.header_updated = state.marks.touch();
            }
            Err(error) => {
                log::warn!("file {}: the slot could not be repaired: {error}", header.file);
            }
        }
    }

    /// Which of the two header slots in these bytes are authentic; `None` for a file without one.
    ///
    /// # Errors
    /// As a read.
    pub(in crate::volume) fn vouches_for(
        &self,
        area: &[u8; HEADER_AREA],
    ) -> Result<Option<[bool; 2]>> {
        let state = self.ready_state()?;
        let good = |slot: UnverifiedHeader, keys| slot.verify(keys).is_ok();
        Ok(state.ready.as_ref().map(|ready| {
            [Slot::A, Slot::B]
                .map(|slot| parse_slot(area, slot).is_ok_and(|parsed| good(parsed, &ready.keys)))
        }))
    }

    /// The header never reached the disk, or was erased (R5). After a crash that is a file of which
    /// nothing was ever synced, since a sync takes page 0 along: what else of it is there cannot be
    /// read by anybody, and it is an empty file, as one that was cut to nothing is.
    ///
    /// Somebody's bytes under a header that was lost in another way are left alone: only a file that
    /// holds nothing at all, or that was changed since the crashed session began, is taken for such
    /// a one. *Crash*: the cut is one step, and can be repeated.
    fn without_header(&self, state: &mut State) -> Result<()> {
        let synced = state.marks.proven_size > 0;
        if synced || !self.shared.has_crashed() || !self.was_never_synced()? {
            return Err(VolumeError::Lost(WHAT));
        }
        log::warn!("a file of which nothing was synced before a crash is empty");
        if self.access == Access::ReadWrite
            && let Err(error) = self.backing.keep_times(&mut || self.backing.set_length(0))
        {
            log::warn!("its length could not be put right: {error}");
            state.marks.untold = Some(0);
        }
        state.has_header = false;
        self.keys.forget();
        (state.size, state.untouched, state.marks.durable_size) = (0, 0, 0);
        Ok(())
    }

    fn was_never_synced(&self) -> Result<bool> {
        Ok(is_blank(&*self.backing)? || self.shared.changed_in_crash(self.backing.ctime()?))
    }

    /// True if the file is empty only because nothing of it was synced before a crash, and its length
    /// does not say so yet.
    pub(in crate::volume) fn was_emptied(&self) -> bool {
        !self.read_state().has_header && self.backing.length().is_ok_and(|length| length > 0)
    }

    /// The newest slot that its own key vouches for.
    fn choose(
        &self,
        slots: &[Result<UnverifiedHeader, EnvelopeError>; 2],
    ) -> Result<(Slot, FileKeys, FileHeader)> {
        let mut known: Vec<_> = [Slot::A, Slot::B]
            .into_iter()
            .zip(slots)
            .filter_map(|(slot, parsed)| Some((slot, parsed.as_ref().ok()?)))
            .collect();
        if let [Err(EnvelopeError::Newer(what)), _] | [_, Err(EnvelopeError::Newer(what))] = slots
            && known.is_empty()
        {
            return Err(VolumeError::Newer(what));
        }
        known.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.claims().sequence));
        let mut failure = VolumeError::Tampered(WHAT);
        for (slot, unverified) in known {
            let claims = unverified.claims();
            let dek = match self.keys.unwrap(claims) {
                Ok(dek) => dek,
                // A wrap that does not open is damage, and the other slot may be good. A key that
                // may not be used is an answer: an older slot must not get around it (R9).
                Err(error @ VolumeError::Tampered(_)) => {
                    failure = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let keys = FileKeys::new(claims.file, dek);
            if let Ok(header) = unverified.verify(&keys) {
                return Ok((slot, keys, header));
            }
        }
        Err(failure)
    }

    /// Refuses what would change a file that is open for reading only.
    pub(super) fn must_be_writable(&self) -> Result<()> {
        if self.access == Access::ReadOnly { Err(VolumeError::ReadOnly) } else { Ok(()) }
    }

    /// Makes keys and a header for a file that has none. Nothing reaches the disk yet.
    pub(super) fn ensure_header(&self, state: &mut Change<'_>) -> Result<()> {
        self.must_be_writable()?;
        self.load(state)?;
        // Pages behind the end that could not be cut off must not come back as contents.
        self.tell_again(state)?;
        if state.stretched {
            return Err(VolumeError::Tampered("file length"));
        }
        if state.ready.is_some() {
            return self.write_owed_header(state);
        }
        let (file, dek, recipient) = self.keys.create()?;
        let keys = FileKeys::new(file, dek);
        let cipher = keys.unit_cipher();
        let header = FileHeader {
            file,
            sequence: 1,
            // Until it is sealed, a crash of this session, and of no other, explains what is odd.
            flags: HeaderFlags { open: true, ..HeaderFlags::default() },
            seal: Seal { size: 0, session: self.shared.session(), mtime: i64::MIN },
            recipients: recipient.into(),
        };
        state.ready = Some(Ready { header, keys, cipher, fresh: true });
        state.has_header = true;
        state.marks.durable_size = 0;
        Ok(())
    }

    /// Changes the header: in memory while it is fresh, else in the slot that is not durable (R3).
    pub(super) fn update_header(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        self.update_slots(state, Slots::Spare, change)
    }

    /// Changes the header in both slots, so that no damage of one brings an older one back. Each is
    /// the old header or the new one after a crash, and both are good; a page is written whole.
    pub(super) fn update_both_slots(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        self.update_slots(state, Slots::Both, change)
    }

    fn update_slots(
        &self,
        state: &mut State,
        slots: Slots,
        change: impl FnOnce(&mut FileHeader),
    ) -> Result<()> {
        if matches!(slots, Slots::Both) && state.marks.mtime_moved {
            self.sync_locked(state)?;
        }
        let ready = state.ready.as_mut().ok_or(VolumeError::Lost(WHAT))?;
        if ready.fresh {
            change(&mut ready.header);
            return Ok(());
        }
        let mut header = ready.header.clone();
        change(&mut header);
        header.sequence += 1;
        let slot = match state.marks.header_written {
            Some(slot) => slot,
            None => state.marks.header_durable.map_or(Slot::A, Slot::other),
        };
        let bytes = header.encode(&ready.keys);
        let written = match slots {
            Slots::Spare => self.write_slot(slot, &bytes),
            Slots::Rewrapped => self.write_rewrapped(slot, &bytes),
            Slots::Both => self.write_area(&[bytes, bytes].concat(), 0),
        };
        if let Err(error) = written {
            let both = matches!(slots, Slots::Both);
            if both {
                // Whatever arrived has this number: the next header must count before it.
                ready.header.sequence = header.sequence;
            }
            if both || !is_untouched(&error) {
                // It may have arrived all the same, and say what is not so: a seal, for one.
                state.marks.header_written = Some(slot);
                state.marks.header_updated = state.marks.touch();
                state.marks.header_owed = true;
                state.marks.header_unsure = true;
            }
            return Err(error);
        }
        ready.header = header;
        state.marks.header_written = Some(slot);
        state.marks.header_updated = state.marks.touch();
        state.marks.header_owed = false;
        state.marks.mtime_moved |= matches!(slots, Slots::Rewrapped);
        Ok(())
    }

    /// Writes the header again after a failure that may have left another one on the disk.
    pub(super) fn write_owed_header(&self, state: &mut State) -> Result<()> {
        if state.marks.header_owed { self.update_header(state, |_| {}) } else { Ok(()) }
    }

    /// Replaces the wraps of the file key, in the slot that is not durable. Returns false if
    /// `change` leaves them as they are, or the file has no header.
    ///
    /// The backing mtime moves with it, so that a backup that goes by size and time takes the file
    /// along before the old wrap is worth nothing. *Order*: the new header, the time, a sync of both,
    /// and only then is the old slot written over. *Crash*: before the sync the old slot is there
    /// still, so the re-wrap comes again and moves the time ([`Self::mark_rewrapped`]); after it, the
    /// time is on the disk. A copy that is made meanwhile has the old time, and is made again, or the
    /// new time, and with it the new header.
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
        let mtime = self.backing.mtime()?;
        self.update_slots(&mut state, Slots::Rewrapped, |header| {
            header.recipients = recipients;
            // What was sealed is sealed still.
            if header.seal.mtime == mtime {
                header.seal.mtime = mtime.saturating_add(MTIME_STEP);
            }
        })?;
        Ok(true)
    }

    /// Moves the backing mtime of a file whose newer slot a crashed re-wrap has written: whether its
    /// time reached the disk is not known.
    ///
    /// # Errors
    /// As a write.
    pub(in crate::volume) fn mark_rewrapped(&self) -> Result<()> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.must_be_writable()?;
        self.load(&mut state)?;
        if state.ready.as_ref().is_some_and(|ready| !ready.fresh) {
            self.backing.mark_changed(&mut || Ok(()))?;
            state.marks.header_updated = state.marks.touch();
            state.marks.mtime_moved = true;
        }
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

    /// Writes page 0 of a file that has a header but no contents yet.
    pub(super) fn write_fresh_header(&self, state: &mut State) -> Result<()> {
        if !state.ready()?.fresh {
            return Ok(());
        }
        let mut page = [0; PAGE_LEN];
        self.fresh_slots(state, page.first_chunk_mut().expect("page 0 begins with the slots"))?;
        self.set_length(backing_len(state.size))?;
        if let Err(error) = self.write_all(&page, 0) {
            self.tell_length(state);
            return Err(error);
        }
        self.header_is_out(state);
        Ok(())
    }

    /// After a failure: lets the backing length say what the size is. If that is not possible now,
    /// it is done before the next change and before a sync counts.
    pub(super) fn tell_length(&self, state: &mut State) {
        // Without its page 0 a file must be empty, or nobody could open it again.
        let fresh = state.ready.as_ref().is_some_and(|ready| ready.fresh);
        let length = if fresh { 0 } else { backing_len(state.size) };
        state.marks.untold = Some(length);
        state.marks.touch();
        if let Err(error) = self.tell_again(state) {
            log::warn!("the length could not be put back: {error}");
        }
    }

    /// Gives the backing file the length that it should have and could not be given.
    pub(super) fn tell_again(&self, state: &mut State) -> Result<()> {
        let Some(length) = state.marks.untold else { return Ok(()) };
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        // In two steps: one would leave ciphertext in the hint (R6).
        self.set_length(length / PAGE * PAGE)?;
        self.set_length(length)?;
        state.marks.untold = None;
        self.forget_groups(state, state.size);
        Ok(())
    }

    /// Puts both slots of a fresh header into the page that is about to go out.
    pub(super) fn fresh_slots(&self, state: &State, area: &mut [u8; HEADER_AREA]) -> Result<()> {
        let ready = state.ready()?;
        let bytes = ready.header.encode(&ready.keys);
        area.chunks_exact_mut(RECORD_LEN).for_each(|slot| slot.copy_from_slice(&bytes));
        Ok(())
    }

    /// Notes that the page of a fresh header was written.
    pub(super) fn header_is_out(&self, state: &mut State) {
        if let Some(ready) = &mut state.ready {
            ready.fresh = false;
        }
        state.marks.header_durable = None;
        state.marks.header_written = Some(Slot::A);
        state.marks.header_updated = state.marks.touch();
    }

    /// Sets the backing length. An error that comes after the length has changed is none.
    pub(super) fn set_length(&self, length: u64) -> Result<()> {
        match self.backing.set_length(length) {
            Err(error) if self.backing.length() != Ok(length) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn write_slot(&self, slot: Slot, bytes: &[u8; RECORD_LEN]) -> Result<()> {
        self.write_area(bytes, slot.offset())
    }

    fn write_rewrapped(&self, slot: Slot, bytes: &[u8; RECORD_LEN]) -> Result<()> {
        Ok(self.backing.mark_changed(&mut || self.write_header_bytes(bytes, slot.offset()))?)
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

    /// Writes all of `bytes` or fails.
    pub(super) fn write_all(&self, bytes: &[u8], offset: u64) -> Result<()> {
        if self.backing.write_at(bytes, offset)? < bytes.len() {
            return Err(VolumeError::Io(Errno::NOSPC));
        }
        Ok(())
    }
}

fn parse_slot(area: &[u8; HEADER_AREA], slot: Slot) -> Result<UnverifiedHeader, EnvelopeError> {
    UnverifiedHeader::parse(bytes_of(area, slot))
}

fn bytes_of(area: &[u8; HEADER_AREA], slot: Slot) -> &[u8; RECORD_LEN] {
    let (first, second) = area.split_first_chunk().expect("the area has two slots");
    match slot {
        Slot::A => first,
        Slot::B => second.first_chunk().expect("the area has two slots"),
    }
}
