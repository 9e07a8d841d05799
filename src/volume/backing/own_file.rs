//! The vault's own small files: descriptors, the record of sessions, lists.
//!
//! Somebody may have put a FIFO, a device, an endless file or a further name of another file in
//! their place: only regular files are read, up to the size that theirs can have, and none is written
//! that has another name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RenameFlags, fdatasync, fsync};
use rustix::io::{Errno, pread, pwrite};

use super::beneath::{self, Name};
use crate::volume::model::error::{Result, VolumeError};

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Reads a file whole; `None` if there is none.
///
/// # Errors
/// `Tampered(what)` if it has more than `limit` bytes, or is no regular file.
pub(in crate::volume) fn read<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    (limit, what): (usize, &'static str),
) -> Result<Option<Vec<u8>>> {
    let file = match beneath::open_file(dir, name, OFlags::RDONLY) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::STALE | Errno::LOOP | Errno::XDEV) => return Err(VolumeError::Tampered(what)),
        Err(error) => return Err(error.into()),
    };
    let length = usize::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if length > limit {
        return Err(VolumeError::Tampered(what));
    }
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(&file, rest, done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(done);
    Ok(Some(bytes))
}

/// Opens a file to write to it where it lies; `None` if there is none that may be written.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn to_write<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<Option<OwnedFd>, Errno> {
    open_ours(dir, name, OFlags::RDWR)
}

/// Opens a file to read it where it lies; `None` if there is none, or what is there is none of ours.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn to_read<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<Option<OwnedFd>, Errno> {
    open_ours(dir, name, OFlags::RDONLY)
}

/// A regular file with one name.
fn open_ours<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    flags: OFlags,
) -> Result<Option<OwnedFd>, Errno> {
    let held = match beneath::hold(dir, name) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let found = held.found();
    let ours = FileType::from_raw_mode(found.st_mode).is_file() && found.st_nlink == 1;
    if ours { held.open_file(flags).map(Some) } else { Ok(None) }
}

/// Makes a file, in place of whatever is there.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn fresh<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<OwnedFd, Errno> {
    let (dir, name) = (dir.as_fd(), name.into());
    match beneath::create_file(dir, name, PRIVATE) {
        Err(Errno::EXIST) => {
            remove(dir, name)?;
            beneath::create_file(dir, name, PRIVATE)
        }
        other => other,
    }
}

/// Replaces a file so that a crash leaves the old one or the new one, never a mixture.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn replace<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    bytes: &[u8],
) -> Result<(), Errno> {
    let (dir, name) = (dir.as_fd(), name.into());
    let temp = name.with(".new").ok_or(Errno::NAMETOOLONG)?;
    let file = fresh(dir, &temp)?;
    let written = write_all(file.as_fd(), bytes)
        .and_then(|()| fdatasync(&file))
        .and_then(|()| put(dir, &temp, name));
    if let Err(error) = written {
        let _ = beneath::remove(dir, &temp);
        return Err(error);
    }
    fsync(dir)
}

/// Gives the file `from` the name `to`, in place of whatever has it.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn put<'n>(
    dir: impl AsFd,
    from: impl Into<Name<'n>>,
    to: impl Into<Name<'n>>,
) -> Result<(), Errno> {
    let (dir, from, to) = (dir.as_fd(), from.into(), to.into());
    let rename = || beneath::rename((dir, from), (dir, to), RenameFlags::empty());
    match rename() {
        Err(Errno::ISDIR) => set_aside(dir, to).and_then(|()| rename()),
        other => other,
    }
}

/// Removes what has a name of ours.
///
/// # Errors
/// `NOENT`; those of the backing filesystem.
pub(in crate::volume) fn remove<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<(), Errno> {
    let (dir, name) = (dir.as_fd(), name.into());
    match beneath::remove(dir, name) {
        Err(Errno::ISDIR | Errno::PERM) => set_aside(dir, name),
        other => other,
    }
}

/// A directory that somebody put in the place of a file of ours keeps what is in it, under another name.
fn set_aside(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<(), Errno> {
    for number in 0..ASIDE {
        let aside = name.with(&format!(".aside{number}")).ok_or(Errno::NAMETOOLONG)?;
        match beneath::rename((dir, name), (dir, &aside), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                log::warn!("a directory was in the place of a file of the vault's own: set aside");
                return Ok(());
            }
        }
    }
    Err(Errno::EXIST)
}

/// Directories that are set aside from one place.
const ASIDE: u32 = 100;

/// Writes bytes from the start of a file.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_all(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(file, rest, done as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(wrote) => done += wrote,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
