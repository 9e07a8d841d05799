//! Headers that name the present session: no crash from before it excuses anything in such a file
//! (FORMAT section 12.3).

use crate::envelope::Seal;
use crate::volume::content::{Content, State};
use crate::volume::model::error::Result;

impl Content {
    /// Before a change, writes the present word into the header, durably, if the seal is of a session
    /// that this one does not follow: otherwise a crash of this session would not excuse the change.
    /// That happens where sessions are counted anew, and with copies of a vault that went separate
    /// ways.
    ///
    /// Its size and time stay as they are: what was durable then is durable now. A crash before the
    /// sync leaves either header (R3) and no page of the change; one after it a file that this
    /// session may announce.
    pub(in crate::volume::content) fn follow(&self, state: &mut State) -> Result<()> {
        let seal = state.ready()?.header.seal;
        let follows = seal.session.is_not_after(self.shared.session());
        if follows && !state.following {
            return Ok(());
        }
        state.following = true;
        if !follows {
            let session = self.shared.session();
            self.update_header(state, |header| {
                header.flags.open = false;
                header.seal.session = session;
            })?;
        }
        self.sync_locked(state)?;
        state.following = false;
        Ok(())
    }

    /// Recovery has looked through the file, and that is durable: a header that says so goes into
    /// the slot that is not durable. Called again after a sync, it goes into the other one too, so
    /// that no damage brings back what an older header excused. False if the file is not mended: it
    /// keeps its excuse.
    ///
    /// A crash before the first sync leaves the old header, and the file is looked through again,
    /// or the new one beside it, which counts (R3). From the first sync on the new one is there, and
    /// a crash leaves the other slot as it was or new.
    ///
    /// # Errors
    /// As a write and a sync.
    pub(in crate::volume) fn confirm(&self) -> Result<bool> {
        let _gate = self.enter();
        let mut state = self.write_state();
        self.load(&mut state)?;
        let Some(ready) = &state.ready else { return Ok(true) };
        let born_now =
            ready.header.flags.open && ready.header.seal.session == self.shared.session();
        if ready.fresh || born_now {
            // No crash of the past concerns it.
            return Ok(true);
        }
        if self.is_excused(&state) || state.marks.doubt.has_failed_sync() {
            return Ok(false);
        }
        if self.is_read_only() {
            // It was mended before it could not be written any more.
            return Ok(true);
        }
        if state.marks.header.is_written() {
            // Somebody changed it since the sync: the slots would not take turns.
            self.sync_locked(&mut state)?;
        }
        self.make_filled_durable(&mut state)?;
        if state.marks.doubt.has_failed_sync() {
            return Ok(false);
        }
        let seal = self.present_seal(&state)?;
        self.update_header(&mut state, |header| {
            header.flags.open = false;
            header.seal = seal;
        })?;
        state.outdated = false;
        Ok(true)
    }

    /// A seal of this session. While contents are on their way, or if some cannot be read, it keeps the
    /// old size: what was durable then is durable now.
    fn present_seal(&self, state: &State) -> Result<Seal> {
        let (old, session) = (state.ready()?.header.seal, self.shared.session());
        let marks = &state.marks;
        if marks.changes.has_contents() || marks.is_unsure() || state.spoiled {
            return Ok(Seal { session, ..old });
        }
        Ok(Seal { size: state.size, session, mtime: self.backing.mtime()? })
    }
}
