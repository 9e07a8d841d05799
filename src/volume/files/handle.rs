//! What a program holds open.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::file::{File, Origin};
use crate::volume::access::authorizer::{Admission, Writing};
use crate::volume::model::error::Result;
use crate::volume::model::errseq::Heard;

/// A file that somebody has open, until it is closed.
#[derive(Debug)]
pub struct FileHandle {
    /// Inode number.
    pub ino: u64,
    /// The open file, shared by all handles of the inode.
    pub file: Arc<File>,
    /// The count of [`crate::volume::namespace::set_id::SetIdCounter`] when it was last found without privileges.
    pub(in crate::volume) unprivileged: AtomicU64,
    /// The right of the user who opened it; none for the volume's owner.
    pub(in crate::volume) admission: Option<Arc<Admission>>,
    /// What it was told of failed write-backs.
    pub(in crate::volume) heard: Heard,
}

impl FileHandle {
    pub(in crate::volume) fn new(ino: u64, file: Arc<File>) -> Self {
        let heard = file.content().errors().sample();
        Self { ino, file, unprivileged: AtomicU64::new(0), admission: None, heard }
    }

    /// Writes `data`; returns how many bytes were taken.
    ///
    /// # Errors
    /// As [`File::write`]; `Keystore` when a required audit log cannot be written.
    pub fn write(&self, offset: u64, data: &[u8], origin: Origin) -> Result<usize> {
        // Pages of the kernel's cache come back without a user: they must not be lost.
        let _writing = if origin == Origin::Caller { self.writing() } else { None };
        self.file.write(offset, data, origin)
    }

    /// A request that may give the file its first contents: held while that is under way, so that
    /// it is written down for whom a key is made.
    pub(in crate::volume) fn writing(&self) -> Option<Writing> {
        self.admission.as_ref().map(|admission| admission.writing())
    }

    /// Refuses a user who may not use the file any more. Costs next to nothing while nothing
    /// changes.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check(&self) -> Result<()> {
        self.admission.as_ref().map_or(Ok(()), |admission| admission.check())
    }
}
