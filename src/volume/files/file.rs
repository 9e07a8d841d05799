//! One inode that is open, however many paths lead to it, and the handles that programs have of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

use super::file_key::{FileKeySource, FilePolicy};
use crate::envelope::{Recipient, XattrKeys};
use crate::id::KeyId;
use crate::sys;
use crate::volume::access::authorizer::{Admission, Subject, SubjectCell, Writing};
use crate::volume::backing::contents::Durability;
use crate::volume::content::{Access, Content, Marks};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::errseq::Heard;
use crate::volume::session::times::TimedFile;

/// Where bytes to write come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A system call that is under way: it can be refused.
    Caller,
    /// Pages that were written through a mapping earlier: they must not be lost (R12).
    PageCache,
}

/// An inode that is open.
pub struct File {
    ino: u64,
    content: Content,
    /// Why the backing file is open for reading only, if the volume is not.
    unwritable: Option<Errno>,
    backing: Arc<TimedFile>,
    source: Arc<FileKeySource>,
    /// The kernel knows the size.
    size_known: AtomicBool,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("ino", &self.ino).finish_non_exhaustive()
    }
}

impl File {
    pub(in crate::volume) fn new(
        ino: u64,
        content: Content,
        (backing, unwritable): (Arc<TimedFile>, Option<Errno>),
        source: Arc<FileKeySource>,
    ) -> Self {
        Self { ino, content, unwritable, backing, source, size_known: AtomicBool::new(false) }
    }

    /// What is to be kept of a file that is closed.
    pub(in crate::volume) fn into_marks(self) -> Option<Marks> {
        self.content.into_marks()
    }

    /// The inode number.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The file's contents. Use this for what is not a request of a caller.
    pub(in crate::volume) fn content(&self) -> &Content {
        &self.content
    }

    /// The plaintext size in bytes.
    pub fn size(&self) -> u64 {
        self.content.size()
    }

    /// True once the kernel knows the size: from then on its own requests alone change it.
    pub(in crate::volume) fn is_size_known(&self) -> bool {
        self.size_known.load(Ordering::Acquire)
    }

    pub(in crate::volume) fn set_size_known(&self) {
        self.size_known.store(true, Ordering::Release);
    }

    pub(in crate::volume) fn set_size_unknown(&self) {
        self.size_known.store(false, Ordering::Release);
    }

    /// The backing file, whose header updates keep its attributes.
    pub(in crate::volume) fn backing(&self) -> &TimedFile {
        &self.backing
    }

    /// The backing file, for its attributes.
    pub fn backing_fd(&self) -> BorrowedFd<'_> {
        self.backing.as_fd()
    }

    /// Reads into `buf`; returns how many bytes there were before the end.
    ///
    /// # Errors
    /// As [`Content::read`]; `KeyUnusable` from the instant that the key is revoked.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.check(Origin::Caller)?;
        self.content.read(offset, buf)
    }

    /// Writes `data`; returns how many bytes were taken.
    ///
    /// # Errors
    /// As [`Content::write`].
    pub fn write(&self, offset: u64, data: &[u8], origin: Origin) -> Result<usize> {
        self.check(origin)?;
        self.must_be_writable()?;
        self.content.write(offset, data)
    }

    /// Sets the size.
    ///
    /// # Errors
    /// As [`Content::truncate`].
    pub fn truncate(&self, size: u64) -> Result<()> {
        self.check(Origin::Caller)?;
        self.must_be_writable()?;
        self.content.truncate(size)
    }

    /// Refuses what would write to a backing file that is open for reading only.
    ///
    /// # Errors
    /// `Io`: why it could not be opened for writing.
    pub(in crate::volume) fn must_be_writable(&self) -> Result<()> {
        self.must_be_mutable()?;
        self.unwritable.map_or(Ok(()), |why| Err(why.into()))
    }

    /// Refuses what would change an immutable file.
    ///
    /// # Errors
    /// `Io(PERM)`.
    pub(in crate::volume) fn must_be_mutable(&self) -> Result<()> {
        if self.content.is_frozen() { Err(Errno::PERM.into()) } else { Ok(()) }
    }

    /// Lets an immutable file be changed again, through another descriptor of its backing file, which
    /// can write.
    ///
    /// # Errors
    /// Those of `dup3(2)`.
    pub(in crate::volume) fn thaw(&self, writable: OwnedFd) -> Result<()> {
        self.content.thaw(|| Ok(sys::stand_for(self.backing_fd(), &writable)?))
    }

    /// The contents, for the other operations of a caller.
    ///
    /// # Errors
    /// `KeyUnusable` when the key is revoked.
    pub fn for_caller(&self) -> Result<&Content> {
        self.check(Origin::Caller)?;
        Ok(&self.content)
    }

    /// Makes contents and length durable; needs no key.
    ///
    /// # Errors
    /// `Io` when the disk failed.
    pub fn sync(&self, what: Durability) -> Result<()> {
        self.content.sync(what)
    }

    /// The keys of the file's extended attributes; `None` for an empty file without any when
    /// nothing is to be changed.
    ///
    /// # Errors
    /// As [`Content::xattr_keys`].
    pub fn xattr_keys(&self, change: Access) -> Result<Option<XattrKeys>> {
        self.check(Origin::Caller)?;
        self.content.xattr_keys(change)
    }

    /// The directory of the file has changed, by a rename, a link or a new policy.
    pub(in crate::volume) fn set_policy(&self, policy: FilePolicy) {
        self.source.set_policy(policy);
    }

    /// Takes a policy that was looked up for the next open. False if the file is under a key that this
    /// does not accept (R9).
    pub(in crate::volume) fn goes_on_under(&self, policy: &FilePolicy) -> bool {
        let accepted = self.key().is_none_or(|key| policy.accepted.contains(&key));
        if accepted {
            self.source.set_policy(policy.clone());
        }
        accepted
    }

    /// The file may be under this key as well.
    pub(in crate::volume) fn accept(&self, key: KeyId) {
        self.source.accept(key);
    }

    /// The KMS key that the header names, once there is a header.
    pub fn key(&self) -> Option<KeyId> {
        self.subject().map(|subject| subject.key)
    }

    /// A re-wrap brought the file under another key or material.
    pub(in crate::volume) fn set_recipient(&self, recipient: &Recipient) {
        if let Some(subject) = self.subject() {
            self.source.note(recipient, subject.file);
        }
    }

    /// What permissions on the file are about, kept up to date.
    pub(in crate::volume) fn subject_cell(&self) -> &Arc<SubjectCell> {
        self.source.subject()
    }

    /// What they are about now; `None` before the file has contents.
    pub(in crate::volume) fn subject(&self) -> Option<Subject> {
        self.source.subject().get()
    }

    /// True if the file has attributes under its key, which it keeps when it is cut to nothing.
    pub(in crate::volume) fn keeps_its_key(&self) -> bool {
        self.content.header().is_some_and(|header| header.flags.xattrs)
    }

    /// The key that the file gets with its first contents.
    pub(in crate::volume) fn first_key(&self) -> KeyId {
        self.source.first_key()
    }

    /// The source of the file's keys.
    pub(in crate::volume) fn source(&self) -> &FileKeySource {
        &self.source
    }

    /// R12: from the instant of revocation only pages that were dirty before get through.
    pub(in crate::volume) fn check(&self, origin: Origin) -> Result<()> {
        match self.key() {
            Some(key) if origin == Origin::Caller && self.source.is_revoked(key) => {
                Err(VolumeError::KeyUnusable(key))
            }
            _ => Ok(()),
        }
    }
}

/// A file that somebody has open, until it is closed.
#[derive(Debug)]
pub struct FileHandle {
    /// Inode number.
    pub ino: u64,
    /// The open file, shared by all handles of the inode.
    pub file: Arc<File>,
    /// The count of [`crate::volume::namespace::set_id::SetIdCounter`] when it was last found without
    /// privileges.
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
