//! Opening a file: its header's claims first, then its key, and repairs last (FORMAT sections 3 and
//! 11.2).

use super::slots::{Claims, bytes_of};
use crate::envelope::layout::{Copy2, HEADER_AREA, PAGE_LEN};
use crate::envelope::{FileHeader, FileKeys};
use crate::volume::backing::contents::is_blank;
use crate::volume::content::{Content, Ready, State};
use crate::volume::model::error::{Result, VolumeError};

const WHAT: &str = "file header";

/// A header that its own key vouches for.
struct Unlocked {
    slot: Copy2,
    keys: FileKeys,
    header: FileHeader,
}

impl Content {
    /// Loads keys and header of a file that has one and whose keys are not here.
    ///
    /// *Order*: (1) what both slots claim is read, without any key; (2) whether the newest may be
    /// opened is asked; (3) its key is unwrapped, and the slot held against it; (4) what a crash may
    /// excuse is decided; (5) a damaged slot is written anew. Only (5) changes anything: a crash leaves
    /// that slot as it was or whole.
    pub(in crate::volume::content) fn load(&self, state: &mut State) -> Result<()> {
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
        let claims = Claims::read(area);
        let Unlocked { slot, keys, mut header } = self.unlock(&claims)?;
        let spare_ok = claims.are_vouched_for(slot.other(), &keys);
        let both = spare_ok || self.is_half_a_header(&header, bytes_of(area, slot.other()));
        (state.excuses, state.mended) = self.shared.excuses(&header, both);
        state.marks.header.found(slot);
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

    /// The newest slot that its own key vouches for.
    fn unlock(&self, claims: &Claims) -> Result<Unlocked> {
        let mut failure = claims.failure();
        for (slot, unverified) in claims.newest_first() {
            let claims = unverified.claims();
            // A key that may not be used is an answer: an older slot must not get around it (R9).
            self.keys.admit(claims)?;
            let dek = match self.keys.unwrap(claims) {
                Ok(dek) => dek,
                // A wrap that does not open is damage, and the other slot may be good.
                Err(error @ VolumeError::Tampered(_)) => {
                    failure = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let keys = FileKeys::new(claims.file, dek);
            if let Ok(header) = unverified.verify(&keys) {
                self.keys.opened(&header);
                return Ok(Unlocked { slot, keys, header });
            }
        }
        Err(failure)
    }

    /// Writes the damaged slot again. It may have said that the file is sealed and mended, so the
    /// header that replaces it says that. A crash leaves the slot as it was or whole.
    fn replace_slot(
        &self,
        state: &mut State,
        slot: Copy2,
        header: &mut FileHeader,
        keys: &FileKeys,
    ) {
        if self.is_read_only() {
            return;
        }
        let mut sealed = header.clone();
        sealed.flags.open = false;
        sealed.seal.session = self.shared.session();
        sealed.sequence += 1;
        match self.write_slot(slot, &sealed.encode(keys)) {
            Ok(()) => {
                *header = sealed;
                let generation = state.marks.touch();
                state.marks.header.replaced(slot, generation);
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
        let claims = Claims::read(area);
        let vouched = |ready: &Ready| {
            [Copy2::First, Copy2::Second].map(|slot| claims.are_vouched_for(slot, &ready.keys))
        };
        Ok(state.ready.as_ref().map(vouched))
    }

    /// The header never reached the disk, or was erased (R5). After a crash, nothing of such a file was
    /// ever synced, since a sync takes page 0 along. Nobody can read what else is there, so it is an
    /// empty file, like one that was cut to nothing.
    ///
    /// Somebody's bytes under a header that was lost in another way are left alone: only a file that
    /// holds nothing at all, or that was changed since the crashed session began, is taken for such a
    /// file. *Crash*: the cut is one step, and can be repeated.
    fn without_header(&self, state: &mut State) -> Result<()> {
        let synced = state.marks.extent.proven() > 0;
        if synced || !self.shared.has_crashed() || !self.was_never_synced()? {
            return Err(VolumeError::Lost(WHAT));
        }
        log::warn!("a file of which nothing was synced before a crash is empty");
        if !self.is_read_only()
            && let Err(error) = self.backing.keep_times(&mut || self.backing.set_length(0))
        {
            log::warn!("its length could not be put right: {error}");
            state.marks.owed_length = Some(0);
        }
        state.has_header = false;
        self.keys.forget();
        (state.size, state.untouched) = (0, 0);
        state.marks.extent.empty();
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
}
