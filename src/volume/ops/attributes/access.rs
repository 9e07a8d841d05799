//! Who may run what, where the kernel does not check it.

use crate::volume::backing::lender;
use crate::volume::engine::Volume;
use crate::volume::model::attr::FileKind;
use crate::volume::model::error::Result;

/// The bits that let somebody run a file.
const EXECUTE: u32 = 0o111;

impl Volume {
    /// True if root may run this file, or enter this directory: root may do everything else.
    ///
    /// # Errors
    /// `Stale` if it is gone; those of the backing filesystem.
    pub fn may_run(&self, ino: u64) -> Result<bool> {
        let (mode, _) = lender::without_loan(&self.stat(ino)?);
        Ok(FileKind::from_mode(mode) == Some(FileKind::Directory) || mode & EXECUTE != 0)
    }
}
