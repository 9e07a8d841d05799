//! From an inode number to something that a system call can act on.
//!
//! An inode is reached through a directory that is held open and the backing name in it, or
//! through the descriptor that pinned it when its last known link went. A [`Place`] keeps the
//! entry still (the directory's lock, for reading) for as long as it lives.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, RwLockReadGuard};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Stat, Timestamps, Uid, chmodat, chownat, openat, readlinkat,
    statat, utimensat,
};
use rustix::io::Errno;

use super::Volume;
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::inode::{Link, ROOT, Whereabouts};

/// How often an entry that moved away under us is looked for again.
const ATTEMPTS: usize = 8;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where an inode is; it stays there while this lives.
#[derive(Debug)]
pub(super) struct Place<'a> {
    at: At<'a>,
    _held: Option<RwLockReadGuard<'a, ()>>,
}

#[derive(Debug)]
enum At<'a> {
    Entry(Arc<Dir>, Box<[u8]>),
    Pinned(Arc<OwnedFd>),
    Root(BorrowedFd<'a>),
}

impl Place<'_> {
    /// The backing attributes.
    pub(super) fn stat(&self) -> Result<Stat, Errno> {
        let (dir, name, flags) = self.parts();
        statat(dir, name, flags)
    }

    /// A descriptor that names the inode and can do nothing else.
    pub(super) fn handle(&self) -> Result<OwnedFd, Errno> {
        match &self.at {
            At::Entry(dir, name) => openat(dir, &**name, HANDLE, Mode::empty()),
            At::Pinned(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 0),
            At::Root(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 0),
        }
    }

    /// Opens the backing file.
    ///
    /// A file whose own mode denies that to us, as its owner and not as root, is opened by giving
    /// the owner access for that moment: the kernel has checked the caller already.
    pub(super) fn open(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.open_plainly(flags) {
            Err(Errno::ACCESS) => {}
            other => return other,
        }
        let mode = Mode::from_raw_mode(self.stat()?.st_mode & 0o7777);
        let handle = self.handle()?;
        let path = proc_path(handle.as_fd());
        chmodat(CWD, &*path, mode | Mode::RUSR | Mode::WUSR | Mode::XUSR, AtFlags::empty())?;
        let opened = self.open_plainly(flags);
        chmodat(CWD, &*path, mode, AtFlags::empty())?;
        opened
    }

    fn open_plainly(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
        match &self.at {
            At::Entry(dir, name) => openat(dir, &**name, flags | OFlags::NOFOLLOW, Mode::empty()),
            // The path is a link of its own kind that leads to the inode itself.
            At::Pinned(fd) => {
                let flags = flags.difference(OFlags::NOFOLLOW);
                openat(CWD, proc_path(fd.as_fd()), flags, Mode::empty())
            }
            At::Root(fd) => openat(fd, ".", flags, Mode::empty()),
        }
    }

    /// Sets the mode. Never follows a link, whatever the vault's owner put in its place.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), Errno> {
        let handle = self.handle()?;
        chmodat(CWD, proc_path(handle.as_fd()), Mode::from_raw_mode(mode), AtFlags::empty())
    }

    /// Sets owner and group.
    pub(super) fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        let (dir, name, flags) = self.parts();
        chownat(dir, name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), flags)
    }

    /// Sets access and modification time.
    pub(super) fn set_times(&self, times: &Timestamps) -> Result<(), Errno> {
        let (dir, name, flags) = self.parts();
        utimensat(dir, name, times, flags)
    }

    /// The text of a symbolic link.
    pub(super) fn read_link(&self) -> Result<Vec<u8>, Errno> {
        let text = match &self.at {
            At::Entry(dir, name) => readlinkat(dir, &**name, Vec::new()),
            At::Pinned(fd) => readlinkat(fd, "", Vec::new()),
            At::Root(_) => Err(Errno::INVAL),
        };
        text.map(std::ffi::CString::into_bytes)
    }

    /// A path for calls that know no directory descriptors. The last part is not to be followed,
    /// except where [`Self::follows`].
    pub(super) fn path(&self) -> Vec<u8> {
        match &self.at {
            At::Entry(dir, name) => [proc_path(dir.as_fd()).as_bytes(), b"/", name].concat(),
            At::Pinned(fd) => proc_path(fd.as_fd()).into_bytes(),
            At::Root(fd) => proc_path(*fd).into_bytes(),
        }
    }

    /// True if [`Self::path`] leads to the inode by following its last part.
    pub(super) fn follows(&self) -> bool {
        !matches!(self.at, At::Entry(..))
    }

    /// Directory, name and flags for the system calls that take these three.
    fn parts(&self) -> (BorrowedFd<'_>, &[u8], AtFlags) {
        match &self.at {
            At::Entry(dir, name) => (dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW),
            At::Pinned(fd) => (fd.as_fd(), b"", AtFlags::EMPTY_PATH),
            At::Root(fd) => (*fd, b"", AtFlags::EMPTY_PATH),
        }
    }
}

impl Volume {
    /// Where `ino` is. Locks: the place holds its directory's lock for reading.
    ///
    /// # Errors
    /// `Stale` if no way to it is known.
    pub(super) fn place(&self, ino: u64) -> Result<Place<'_>> {
        if ino == ROOT {
            return Ok(Place { at: At::Root(self.tree.root()), _held: None });
        }
        for _ in 0..ATTEMPTS {
            match self.tree.inodes.whereabouts(ino).ok_or(VolumeError::Stale)? {
                Whereabouts::Pinned(fd) => return Ok(Place { at: At::Pinned(fd), _held: None }),
                Whereabouts::Entry(link) => {
                    let Some(dir) = self.link_dir(ino, &link)? else { continue };
                    let held = self.tree.locks.reading(link.parent);
                    if self.tree.inodes.has_link(ino, &link) {
                        let at = At::Entry(dir, link.name);
                        return Ok(Place { at, _held: Some(held) });
                    }
                }
            }
        }
        Err(VolumeError::Stale)
    }

    /// The directory `ino`, held open. Locks: takes none that it keeps.
    ///
    /// # Errors
    /// `Stale` if no way to it is known; those of the backing filesystem.
    pub(super) fn dir(&self, ino: u64) -> Result<Arc<Dir>> {
        if let Some(dir) = self.tree.dirs.find(ino) {
            return Ok(dir);
        }
        // The ancestors that are not open, nearest first. Not by recursion: trees can be deep.
        let mut closed = vec![ino];
        while let Some(parent) = closed.last().and_then(|ino| self.parent(*ino)) {
            if self.tree.dirs.find(parent).is_some() || closed.contains(&parent) {
                break;
            }
            closed.push(parent);
        }
        let mut dir = None;
        for ino in closed.into_iter().rev() {
            dir = Some(self.open_dir(ino)?);
        }
        dir.ok_or(VolumeError::Stale)
    }

    fn parent(&self, ino: u64) -> Option<u64> {
        match self.tree.inodes.whereabouts(ino)? {
            Whereabouts::Entry(link) => Some(link.parent),
            Whereabouts::Pinned(_) => None,
        }
    }

    /// Opens a directory whose parent is open, or soon will be again.
    fn open_dir(&self, ino: u64) -> Result<Arc<Dir>> {
        let begun = self.tree.dirs.era();
        let fd = if ino == ROOT {
            openat(self.tree.root(), ".", DIRECTORY, Mode::empty())?
        } else {
            self.open_known_dir(ino)?
        };
        let dir = Dir::open(ino, fd, &self.keyring)?;
        Ok(self.tree.dirs.add(Arc::new(dir), begun))
    }

    fn open_known_dir(&self, ino: u64) -> Result<OwnedFd> {
        for _ in 0..ATTEMPTS {
            let whereabouts = self.tree.inodes.whereabouts(ino).ok_or(VolumeError::Stale)?;
            let place = match whereabouts {
                Whereabouts::Pinned(fd) => Place { at: At::Pinned(fd), _held: None },
                Whereabouts::Entry(link) => {
                    let parent = match self.tree.dirs.find(link.parent) {
                        Some(parent) => parent,
                        None => self.open_dir(link.parent)?,
                    };
                    let held = self.tree.locks.reading(link.parent);
                    if !self.tree.inodes.has_link(ino, &link) {
                        continue;
                    }
                    Place { at: At::Entry(parent, link.name), _held: Some(held) }
                }
            };
            let fd = place.open(DIRECTORY)?;
            let stat = rustix::fs::fstat(&fd)?;
            self.tree.same_device(&stat)?;
            if self.tree.inodes.shown(stat.st_ino) == ino {
                return Ok(fd);
            }
        }
        Err(VolumeError::Stale)
    }

    /// The directory of a link; a link whose directory is no longer known is dropped.
    fn link_dir(&self, ino: u64, link: &Link) -> Result<Option<Arc<Dir>>> {
        match self.dir(link.parent) {
            Ok(dir) => Ok(Some(dir)),
            Err(VolumeError::Stale) => {
                self.tree.inodes.drop_link(ino, link.parent, &link.name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Runs `action` at the place of `ino` and returns the backing attributes after it.
    ///
    /// # Errors
    /// `Stale` if what is there is not `ino`; those of `action`.
    pub(super) fn act<T>(
        &self,
        ino: u64,
        action: impl FnOnce(&Place<'_>) -> Result<T>,
    ) -> Result<(T, Stat)> {
        let place = self.place(ino)?;
        let done = action(&place)?;
        let stat = place.stat()?;
        if self.tree.inodes.shown(stat.st_ino) != ino {
            return Err(VolumeError::Stale);
        }
        Ok((done, stat))
    }
}

/// The path by which this process reaches an open descriptor.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
