//! An inode of the vault, held by a descriptor that names it and can do nothing else (`O_PATH`).
//!
//! A name may lead to another inode a moment later: whoever may write to a backing directory can
//! exchange two entries. So what is to be changed is held first, looked at (is it the inode that was
//! meant, is it a regular file?) and then changed through the descriptor, never through its name.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fstat, getxattr, listxattr, openat, readlinkat, removexattr, setxattr, utimensat,
};
use rustix::io::Errno;

use super::identity::InodeStat;
use super::lender;

type Result<T> = std::result::Result<T, Errno>;

/// An inode that is held, and what it was when that began.
#[derive(Debug)]
pub(in crate::volume) struct Handle {
    fd: OwnedFd,
    seen: InodeStat,
}

impl Handle {
    /// Takes over an `O_PATH` descriptor.
    pub(in crate::volume) fn of(fd: OwnedFd) -> Result<Self> {
        let seen = InodeStat::of(&fd)?;
        Ok(Self { fd, seen })
    }

    /// The attributes when it was taken hold of. Number, device and type never change.
    pub(in crate::volume) fn found(&self) -> &Stat {
        &self.seen.stat
    }

    /// The same, and which of the inodes it is that may have had its number.
    pub(in crate::volume) fn seen(&self) -> &InodeStat {
        &self.seen
    }

    /// The attributes now.
    pub(in crate::volume) fn stat(&self) -> Result<Stat> {
        fstat(&self.fd)
    }

    /// Opens the regular file.
    ///
    /// # Errors
    /// `STALE` for what is no regular file: nothing of the vault that is read or written is.
    pub(in crate::volume) fn open_file(&self, flags: OFlags) -> Result<OwnedFd> {
        match FileType::from_raw_mode(self.found().st_mode) {
            FileType::RegularFile => self.open(flags),
            _ => Err(Errno::STALE),
        }
    }

    /// As [`Self::open_file`], but waits where somebody has a lease on the file: the kernel takes it
    /// away from whoever does not give it back.
    ///
    /// # Errors
    /// As [`Self::open_file`].
    pub(in crate::volume) fn open_file_waiting(&self, flags: OFlags) -> Result<OwnedFd> {
        match FileType::from_raw_mode(self.found().st_mode) {
            FileType::RegularFile => self.open_with(flags | OFlags::CLOEXEC | OFlags::NOCTTY),
            _ => Err(Errno::STALE),
        }
    }

    /// Opens the directory for listing.
    ///
    /// # Errors
    /// `NOTDIR`; those of `openat(2)`.
    pub(in crate::volume) fn open_dir(&self) -> Result<OwnedFd> {
        self.open(OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        // The path is a link of its own kind that leads to the inode itself.
        let flags = flags.difference(OFlags::NOFOLLOW);
        self.open_with(flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK)
    }

    fn open_with(&self, flags: OFlags) -> Result<OwnedFd> {
        lender::with_access(self, || openat(CWD, self.path(), flags, Mode::empty()))
    }

    /// Sets the mode.
    pub(in crate::volume) fn set_mode(&self, mode: u32) -> Result<()> {
        let set = || chmodat(CWD, self.path(), Mode::from_raw_mode(mode), AtFlags::empty());
        lender::change_mode(self.found(), set)
    }

    /// Sets owner and group.
    pub(in crate::volume) fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> Result<()> {
        chownat(&self.fd, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    /// Sets access and modification time.
    pub(in crate::volume) fn set_times(&self, times: &Timestamps) -> Result<()> {
        utimensat(&self.fd, "", times, AtFlags::EMPTY_PATH)
    }

    /// The text of a symbolic link.
    pub(in crate::volume) fn read_link(&self) -> Result<Vec<u8>> {
        readlinkat(&self.fd, "", Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Reads an attribute into `value`; its length.
    pub(in crate::volume) fn xattr(&self, name: &[u8], value: &mut [u8]) -> Result<usize> {
        getxattr(self.path(), name, value)
    }

    /// Reads the names of all attributes into `names`; their length.
    pub(in crate::volume) fn xattr_names(&self, names: &mut [u8]) -> Result<usize> {
        listxattr(self.path(), names)
    }

    /// Sets an attribute.
    pub(in crate::volume) fn set_xattr(
        &self,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        // An ACL sets the mode as well.
        lender::change_mode(self.found(), || setxattr(self.path(), name, value, flags))
    }

    /// Removes an attribute.
    pub(in crate::volume) fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        lender::change_mode(self.found(), || removexattr(self.path(), name))
    }

    /// The path by which this process reaches the inode: a link that leads to it and no further,
    /// also if it is a symbolic link itself.
    pub(in crate::volume) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a backing file for reads of our own, which are no accesses of the user's: the access time
/// stays, where this process may ask for that.
pub(in crate::volume) fn open_noatime(
    flags: OFlags,
    mut open: impl FnMut(OFlags) -> std::result::Result<OwnedFd, Errno>,
) -> std::result::Result<OwnedFd, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}
