//! Removes setuid and setgid before contents change.

use std::sync::atomic::Ordering;

use crate::volume::access::privileges::{has_setgid, without_privileges};
use crate::volume::engine::Volume;
use crate::volume::files::file::FileHandle;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::Result;

/// What became of a file's setuid and setgid bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// There was nothing to take away.
    Unchanged,
    /// The mode changed: the kernel does not know yet.
    Dropped,
}

impl Volume {
    /// Removes what `caller`, who is about to change contents, may not keep of setuid and setgid.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn drop_privileges(&self, handle: &FileHandle, caller: Caller) -> Result<Privileges> {
        let count = self.tree.set_ids.count();
        if handle.unprivileged.load(Ordering::Acquire) == count {
            return Ok(Privileges::Unchanged);
        }
        let mut left = 0;
        let had_some = handle.file.backing().change_mode(|mode, gid| {
            let without = without_privileges(mode, gid, caller);
            left = without.unwrap_or(mode);
            without
        })?;
        // Who comes next may not be in the group.
        if !has_setgid(left) {
            handle.unprivileged.store(count, Ordering::Release);
        }
        Ok(if had_some { Privileges::Dropped } else { Privileges::Unchanged })
    }
}
