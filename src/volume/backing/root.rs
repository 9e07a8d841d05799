//! The directory of a vault, as a person names it.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use crate::volume::model::error::{Result, VolumeError};

/// Opens a directory that a person named: links in its path are that person's.
///
/// # Errors
/// `NoProc`: what is there would look like what is missing; those of the filesystem.
pub fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, "/proc/self/fd", flags, Mode::empty()).map_err(|_| VolumeError::NoProc)?;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// Makes a directory that a person named, for its owner alone, unless it is there.
///
/// # Errors
/// Those of the filesystem.
pub(in crate::volume) fn make_root(path: &Path) -> Result<()> {
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
