//! What records of the page journal are written to.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use rustix::fs::fsync;
use rustix::io::Errno;

use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::contents::{Backing, BackingFile, Durability};
use crate::volume::backing::own_file;

/// One file of a page journal.
pub(in crate::volume) trait RecordFile: Send + Sync {
    /// As [`Backing::write_at`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno>;
    /// As [`Backing::set_length`].
    fn set_length(&self, length: u64) -> Result<(), Errno>;
    /// Makes everything written so far durable. The name of the file is that already.
    fn sync(&self) -> Result<(), Errno>;
}

impl RecordFile for Arc<dyn Backing> {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        (**self).write_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> Result<(), Errno> {
        (**self).set_length(length)
    }

    fn sync(&self) -> Result<(), Errno> {
        (**self).sync(Durability::Contents)
    }
}

/// A file that is made for its first record, because the disk had no room for it when the session
/// began: on a full disk, a mount is what makes room. Until then no page can be written over.
///
/// *Crash order*: its name is durable before a record is written to it.
pub(in crate::volume) struct LateFile {
    meta: OwnedFd,
    name: BackingName,
    made: OnceLock<BackingFile>,
}

impl LateFile {
    /// A file of this name, in the vault's own directory.
    pub(in crate::volume) fn new(meta: OwnedFd, name: BackingName) -> Self {
        Self { meta, name, made: OnceLock::new() }
    }

    /// One thread at a time comes here: the journal writes under its lock.
    fn make(&self) -> Result<&BackingFile, Errno> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let file = own_file::fresh(&self.meta, &self.name)?;
        fsync(&self.meta)?;
        log::warn!("the disk has room again: pages are journaled");
        Ok(self.made.get_or_init(|| BackingFile::new(file)))
    }
}

impl RecordFile for LateFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize, Errno> {
        self.make()?.write_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> Result<(), Errno> {
        self.made.get().map_or(Ok(()), |made| made.set_length(length))
    }

    fn sync(&self) -> Result<(), Errno> {
        self.made.get().map_or(Ok(()), |made| made.sync(Durability::Contents))
    }
}
