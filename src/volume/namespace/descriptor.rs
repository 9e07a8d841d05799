//! The two copies of a directory's descriptor: the file `.kmsfs.dir`, and an attribute of the directory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, XattrFlags, fdatasync, fgetxattr, fsetxattr};
use rustix::io::Errno;

use crate::envelope::{DIR_FILE, DIR_XATTR, DirDescriptor, RECORD_LEN};
use crate::volume::backing::beneath::{self, Name};
use crate::volume::backing::own_file::KeptTime;
use crate::volume::backing::{lender, own_file};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir_locks::Watch;

const WHAT: &str = "directory descriptor";
/// The file in every directory that holds its descriptor.
pub(in crate::volume) const FILE: Name<'static> = Name::literal(DIR_FILE);

/// The bytes of a descriptor.
pub(in crate::volume) type DescriptorBytes = [u8; RECORD_LEN];

/// Both copies of a descriptor, as they were found.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct Copies {
    pub(in crate::volume) file: Option<DescriptorBytes>,
    pub(in crate::volume) attribute: Option<DescriptorBytes>,
    /// A copy could not be read, which says nothing of what it holds.
    pub(in crate::volume) failed: Option<Errno>,
}

impl Copies {
    /// Reads both copies of the descriptor of the open directory `dir`.
    pub(in crate::volume) fn read(dir: impl AsFd) -> Self {
        let dir = dir.as_fd();
        let mut failed = None;
        let mut note = |error| {
            failed = Some(error);
            None
        };
        let file = read_file(dir).unwrap_or_else(&mut note);
        let attribute = read_attribute(dir).unwrap_or_else(&mut note);
        Self { file, attribute, failed }
    }

    /// Why there is no good copy: the disk could not be read, else `otherwise`.
    pub(in crate::volume) fn fault(&self, otherwise: VolumeError) -> VolumeError {
        self.failed.map_or(otherwise, VolumeError::Io)
    }

    pub(in crate::volume) fn all(&self) -> impl Iterator<Item = DescriptorBytes> {
        [self.file, self.attribute].into_iter().flatten()
    }
}

/// Writes both copies of a directory's descriptor.
///
/// The attribute is left out where the backing filesystem has none.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_descriptor(
    dir: BorrowedFd<'_>,
    bytes: &DescriptorBytes,
    watch: Watch<'_>,
) -> Result<()> {
    write_attribute(dir, bytes)?;
    write_file(dir, bytes, watch)
}

/// The same for a directory that was just made and must be empty: if it has a descriptor, it is another
/// directory.
///
/// # Errors
/// `Io(EXIST)`; those of the backing filesystem.
pub(in crate::volume) fn write_first_descriptor(
    dir: impl AsFd,
    bytes: &[u8; RECORD_LEN],
) -> Result<()> {
    let dir = dir.as_fd();
    let file = beneath::create_file(dir, FILE, Mode::RUSR | Mode::WUSR)?;
    own_file::write_all(file.as_fd(), bytes)?;
    write_attribute(dir, bytes)?;
    Ok(())
}

/// Writes the descriptor file again from the attribute, after a removal that took the file away
/// and then failed. Locks: the caller claims the directory.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn restore_descriptor<A: Fn() -> bool>(
    dir: BorrowedFd<'_>,
    kept: &KeptTime<'_, A>,
) -> Result<()> {
    let bytes = read_attribute(dir)?.ok_or(VolumeError::Lost(WHAT))?;
    Ok(own_file::replace_keeping(kept, FILE, &bytes)?)
}

/// Writes the copy in the attribute; false where the backing filesystem has no room for one.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_attribute(
    dir: BorrowedFd<'_>,
    bytes: &DescriptorBytes,
) -> Result<bool> {
    let set = || fsetxattr(dir, DIR_XATTR, bytes, XattrFlags::empty());
    match lender::with_access(dir, set) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOSPC) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the copy in the file durable.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn sync_file(dir: BorrowedFd<'_>) -> Result<()> {
    Ok(fdatasync(beneath::open_file(dir, FILE, OFlags::RDONLY)?)?)
}

/// Writes the copy in the file. The directory keeps its modification time, as far as the `watch` for it
/// tells that nobody else changes it.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_file(
    dir: BorrowedFd<'_>,
    bytes: &DescriptorBytes,
    watch: Watch<'_>,
) -> Result<()> {
    match own_file::to_write(dir, FILE)? {
        Some(file) if holds_id_of(file.as_fd(), bytes) => {
            Ok(own_file::write_all(file.as_fd(), bytes)?)
        }
        _ => {
            let kept = KeptTime::new(dir, || watch.is_undisturbed());
            Ok(own_file::replace_keeping(&kept, FILE, bytes)?)
        }
    }
}

/// True if the file holds a descriptor of the same directory, whatever that says. Anything else in its
/// place may be somebody's file, and is not written to.
fn holds_id_of(file: BorrowedFd<'_>, bytes: &DescriptorBytes) -> bool {
    let mut found = [0; RECORD_LEN + 1];
    let whole = rustix::io::pread(file, &mut found, 0) == Ok(RECORD_LEN);
    let id = |bytes: &[u8; RECORD_LEN]| DirDescriptor::parse(bytes).ok().map(|claims| claims.dir);
    let there = found.first_chunk::<RECORD_LEN>().and_then(id);
    whole && there.is_some() && there == id(bytes)
}

/// True if a directory has a copy of its descriptor in an attribute.
pub(in crate::volume) fn has_attribute(dir: BorrowedFd<'_>) -> bool {
    read_attribute(dir).is_ok_and(|found| found.is_some())
}

/// Brings the copy that is missing, damaged or older in line with `good`, if the vault lets us.
pub(in crate::volume) fn repair(
    fd: &OwnedFd,
    good: &DescriptorBytes,
    copies: Copies,
    watch: Watch<'_>,
) {
    if copies.file.as_ref() != Some(good) && write_file(fd.as_fd(), good, watch).is_ok() {
        log::warn!("repaired the descriptor file of a directory from its attribute");
    }
    if copies.attribute.as_ref() != Some(good)
        && write_attribute(fd.as_fd(), good).is_ok_and(|written| written)
    {
        log::info!("wrote the descriptor attribute of a directory again");
    }
}

fn read_file(dir: BorrowedFd<'_>) -> Result<Option<DescriptorBytes>, Errno> {
    match own_file::read(dir, FILE, (RECORD_LEN, WHAT)) {
        Err(VolumeError::Io(error)) if is_of_the_moment(error) => Err(error),
        read => Ok(read.ok().flatten().and_then(|bytes| bytes.try_into().ok())),
    }
}

fn read_attribute(dir: BorrowedFd<'_>) -> Result<Option<DescriptorBytes>, Errno> {
    let mut bytes = [0; RECORD_LEN];
    match lender::with_access(dir, || fgetxattr(dir, DIR_XATTR, &mut bytes)) {
        Err(error) if is_of_the_moment(error) => Err(error),
        length => Ok((length == Ok(RECORD_LEN)).then_some(bytes)),
    }
}

/// True for errors that say nothing of the vault: its disk fails, or the process has run out of
/// something.
fn is_of_the_moment(error: Errno) -> bool {
    matches!(error, Errno::IO | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
}

/// The copies of a directory's descriptor that can be read, as claims.
pub(in crate::volume) fn dir_copies(fd: &OwnedFd) -> Vec<DirDescriptor> {
    let mut attribute = [0; RECORD_LEN];
    let get = || fgetxattr(fd, DIR_XATTR, &mut attribute);
    let length = lender::with_access(fd, get);
    let attribute = (length == Ok(RECORD_LEN)).then_some(attribute);
    let file = own_file::read(fd, FILE, (RECORD_LEN, "directory descriptor"));
    let file = file.ok().flatten().and_then(|bytes| bytes.try_into().ok());
    let copies = [file, attribute].into_iter().flatten();
    copies.filter_map(|bytes: [u8; RECORD_LEN]| DirDescriptor::parse(&bytes).ok()).collect()
}
