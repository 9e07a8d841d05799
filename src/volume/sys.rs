//! The one system call that no safe crate offers.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Writes the range out and waits for it, without forcing metadata.
#[allow(unsafe_code, reason = "sync_file_range(2) has no safe wrapper")]
pub(super) fn settle(fd: BorrowedFd<'_>, offset: u64, length: u64) -> Result<(), Errno> {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
        return Err(Errno::INVAL);
    };
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes no pointers, and `fd` is open for as long as it is borrowed.
    match unsafe { libc::sync_file_range(fd.as_raw_fd(), offset, length, flags) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
