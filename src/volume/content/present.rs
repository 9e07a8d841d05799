//! Headers that name the present session: no crash from before it excuses anything in such a file
//! (FORMAT section 12.3).

use super::{Content, State};
use crate::volume::error::Result;

impl Content {
    /// Before the file is changed: where its seal is of a session that this one does not follow, a
    /// crash of this session would not excuse the change. So the header takes the present word
    /// first, durably. That happens where sessions are counted anew, and with copies of a vault that
    /// went separate ways.
    ///
    /// Its size and time stay as they are: what was durable then is durable now. A crash before the
    /// sync leaves either header (R3) and no page of the change; one after it a file that this
    /// session may announce.
    pub(super) fn follow(&self, state: &mut State) -> Result<()> {
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
}
