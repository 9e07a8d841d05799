//! Files that nobody may change: immutable ones (chattr(1)).
//!
//! The backing filesystem refuses every write to such a file, also those of the daemon. So nothing may
//! be left to write when that begins: contents are durable, and the seal says how long they are.

use std::sync::atomic::Ordering;

use crate::volume::backing::contents::Durability;
use crate::volume::content::recover::SealEffort;
use crate::volume::content::{Access, Content, State};
use crate::volume::model::error::Result;

/// How often others may write in between.
const ATTEMPTS: usize = 4;

impl Content {
    /// Refuses every change from now on, once everything is durable and sealed. False if that cannot be
    /// had: others go on writing, or a crash or a failed call is not mended yet.
    ///
    /// *Crash*: before the immutability of the backing file is durable, it is a file like others; after
    /// that it is sealed, and needs no crash to explain anything ([`Self::examine`]).
    ///
    /// # Errors
    /// As a sync and a seal: the file can be changed still.
    pub(in crate::volume) fn freeze(&self) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            self.sync(Durability::Everything)?;
            self.seal(SealEffort::Brief)?;
            if self.is_dirty() {
                self.sync(Durability::Everything)?;
            }
            let _gate = self.gate.write();
            let state = self.write_state();
            if self.is_settled(&state) {
                self.frozen.store(true, Ordering::Release);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the file be changed again, once `prepare` has made that possible.
    ///
    /// # Errors
    /// Those of `prepare`.
    pub(in crate::volume) fn thaw(&self, prepare: impl FnOnce() -> Result<()>) -> Result<()> {
        let _gate = self.gate.write();
        let _state = self.write_state();
        prepare()?;
        self.frozen.store(false, Ordering::Release);
        Ok(())
    }

    /// True if nothing of the file may be changed now.
    pub(in crate::volume) fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::Acquire)
    }

    /// The same, or the file is open for reading only.
    pub(in crate::volume::content) fn is_read_only(&self) -> bool {
        self.access == Access::ReadOnly || self.is_frozen()
    }

    fn is_settled(&self, state: &State) -> bool {
        let marks = &state.marks;
        let waits = marks.is_dirty() || marks.changes.is_unsealed() || !marks.filled.is_empty();
        let owes = state.owes_anything() || marks.header.owed_move().is_some();
        let doubtful = marks.is_unsure() || self.doubtful(state) || state.outdated;
        !(waits || owes || doubtful)
    }
}
