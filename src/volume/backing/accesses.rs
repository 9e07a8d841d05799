//! Access times of backing files.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, pread};

/// From now on, reads through this descriptor move no access time, where this process may ask for that.
pub(in crate::volume) fn ignore(fd: impl AsFd) {
    let _ = fcntl_setfl(fd, USUAL | OFlags::NOATIME);
}

/// Has the backing filesystem note an access, by its rules and without a change of any other time.
///
/// # Errors
/// Those of `fcntl(2)` and `pread(2)`.
pub(in crate::volume) fn note(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    fcntl_setfl(fd, USUAL)?;
    let read = pread(fd, &mut [0; 1], 0);
    ignore(fd);
    read.map(drop)
}

/// Those of the flags that can change that every descriptor of a backing file has.
const USUAL: OFlags = OFlags::NONBLOCK;
