//! Removes setuid and setgid before contents change.

use std::sync::atomic::Ordering;

use crate::volume::access::privileges::without_privileges;
use crate::volume::engine::Volume;
use crate::volume::files::file::FileHandle;
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
    /// Removes setuid and setgid before somebody changes contents who may not keep them.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn drop_privileges(&self, handle: &FileHandle) -> Result<Privileges> {
        let count = self.tree.set_ids.count();
        if handle.unprivileged.load(Ordering::Acquire) == count {
            return Ok(Privileges::Unchanged);
        }
        let had_some = handle.file.backing().change_mode(without_privileges)?;
        handle.unprivileged.store(count, Ordering::Release);
        Ok(if had_some { Privileges::Dropped } else { Privileges::Unchanged })
    }
}
