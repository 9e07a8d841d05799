//! The length of the backing file, which tells the size, and what is done while it cannot be set.

use rustix::io::Errno;

use super::{Content, State};
use crate::envelope::layout::{PAGE, backing_len};
use crate::volume::model::error::{Result, VolumeError};

impl Content {
    /// After a failure, makes the backing length tell the size. If that fails, it is tried again before
    /// the next change and before a sync counts.
    pub(super) fn correct_length(&self, state: &mut State) {
        // Without its page 0 a file must be empty, or nobody could open it again.
        let fresh = state.ready.as_ref().is_some_and(|ready| ready.fresh);
        let length = if fresh { 0 } else { backing_len(state.size) };
        state.marks.owed_length = Some(length);
        state.marks.touch();
        if let Err(error) = self.write_owed_length(state) {
            log::warn!("the length could not be put back: {error}");
        }
    }

    /// Sets the backing length that could not be set before.
    pub(super) fn write_owed_length(&self, state: &mut State) -> Result<()> {
        let Some(length) = state.marks.owed_length else { return Ok(()) };
        if self.is_read_only() {
            return Ok(());
        }
        // In two steps: one would leave ciphertext in the hint (R6).
        self.set_length(length / PAGE * PAGE)?;
        self.set_length(length)?;
        state.marks.owed_length = None;
        self.forget_groups(state, state.size);
        Ok(())
    }

    /// Sets the backing length. An error after the length has changed does not count.
    pub(super) fn set_length(&self, length: u64) -> Result<()> {
        match self.backing.set_length(length) {
            Err(error) if self.backing.length() != Ok(length) => Err(error.into()),
            _ => Ok(()),
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
