//! The one door to what is in the vault: every system call that names an entry of a backing
//! directory is made here (`tests/layering.rs` sees to that).
//!
//! Whoever can write to the vault chooses the names in it, also while it is mounted, and can put a
//! link, a FIFO, a device or a mount where a file was. So a name is a [`Name`], which cannot lead out
//! of its directory; a link is never followed; what is mounted inside the vault is not entered
//! (`openat2` with `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS` and `RESOLVE_NO_XDEV`; kernels before 5.6,
//! and sandboxes that refuse the call, compare the device instead); and whatever is opened for its
//! contents is looked at first, without opening it: see [`Handle`].
//!
//! A directory of ours whose own mode keeps its owner out is in nobody's way: see [`lender`].

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, StatxFlags, fstat,
    linkat, mkdirat, mknodat, openat, openat2, renameat_with, statx, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::handle::Handle;
use super::identity::InodeStat;
use super::lender;
use crate::envelope::is_name;

type Result<T> = std::result::Result<T, Errno>;

const READABLE_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// `AT_STATX_DONT_SYNC`: what the kernel knows by itself.
const DO_NOT_ASK: AtFlags = AtFlags::STATX_DONT_SYNC;
const NEVER_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// The name of one entry of a backing directory, as [`is_name`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Name<'a>(&'a [u8]);

/// The same, on its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::volume) struct BackingName(Box<[u8]>);

impl<'a> Name<'a> {
    /// A name of the vault's own, checked when the program is compiled.
    pub(in crate::volume) const fn literal(name: &'static str) -> Name<'static> {
        assert!(is_name(name.as_bytes()), "not the name of one entry");
        Name(name.as_bytes())
    }

    /// This name with `suffix` behind it; `None` if that is no name.
    pub(in crate::volume) fn with(self, suffix: &str) -> Option<BackingName> {
        BackingName::new([self.0, suffix.as_bytes()].concat())
    }
}

impl BackingName {
    /// `None` for what is not the name of one entry.
    pub(in crate::volume) fn new(name: impl Into<Box<[u8]>>) -> Option<Self> {
        let name = name.into();
        is_name(&name).then_some(Self(name))
    }

    /// The bytes of the name.
    pub(in crate::volume) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a path that is shown.
    pub(in crate::volume) fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// This name with `suffix` behind it; `None` if that is no name.
    pub(in crate::volume) fn with(&self, suffix: &str) -> Option<Self> {
        Name::from(self).with(suffix)
    }
}

impl<'a> From<&'a BackingName> for Name<'a> {
    fn from(name: &'a BackingName) -> Self {
        Self(&name.0)
    }
}

/// The attributes of an entry, a link's own if it is one. Enough to look; what is to be changed is
/// held while it is ([`hold`]).
///
/// # Errors
/// `XDEV` for what is mounted there. It is not asked: its filesystem may never answer.
pub(in crate::volume) fn stat<'n>(dir: impl AsFd, name: impl Into<Name<'n>>) -> Result<Stat> {
    fstat(resolve(dir, name.into(), OFlags::PATH)?)
}

/// As [`stat`], and which of the inodes it is that may have had its number.
pub(in crate::volume) fn look<'n>(dir: impl AsFd, name: impl Into<Name<'n>>) -> Result<InodeStat> {
    InodeStat::of(resolve(dir, name.into(), OFlags::PATH)?)
}

/// The same with the generation of the inode.
pub(in crate::volume) fn look_closer<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<InodeStat> {
    InodeStat::with_generation(resolve(dir, name.into(), OFlags::PATH)?)
}

/// Takes hold of the inode that an entry leads to now. Nothing is opened: no FIFO is woken, no
/// device started.
pub(in crate::volume) fn hold<'n>(dir: impl AsFd, name: impl Into<Name<'n>>) -> Result<Handle> {
    Handle::of(resolve(dir, name.into(), OFlags::PATH)?)
}

/// Opens a directory for listing.
pub(in crate::volume) fn open_dir<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<OwnedFd> {
    let (dir, name) = (dir.as_fd(), name.into());
    match resolve(dir, name, READABLE_DIR) {
        Err(Errno::ACCESS) => hold(dir, name)?.open_dir(),
        other => other,
    }
}

/// Opens the directory `dir` again, with a place in its listing of its own.
pub(in crate::volume) fn reopen_dir(dir: impl AsFd) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    lender::with_access(dir, || openat(dir, ".", READABLE_DIR | NEVER_FOLLOW, Mode::empty()))
}

/// Opens the directory above `dir`, wherever that is by now: whoever came from it compares it with
/// what it was.
pub(in crate::volume) fn above(dir: impl AsFd) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    lender::with_access(dir, || openat(dir, "..", READABLE_DIR | NEVER_FOLLOW, Mode::empty()))
}

/// Opens a regular file that is there.
///
/// # Errors
/// `STALE` if it is something else.
pub(in crate::volume) fn open_file<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    flags: OFlags,
) -> Result<OwnedFd> {
    hold(dir, name)?.open_file(flags)
}

/// Makes a regular file, which must not be there yet, and opens it.
pub(in crate::volume) fn create_file<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    mode: Mode,
) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | NEVER_FOLLOW;
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || openat(dir, name, flags, mode))
}

/// Makes a directory.
pub(in crate::volume) fn make_dir<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    mode: Mode,
) -> Result<()> {
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || mkdirat(dir, name, mode))
}

/// Makes a FIFO, a socket, a device node or an empty regular file.
pub(in crate::volume) fn make_node<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    (kind, mode): (FileType, Mode),
    device: u64,
) -> Result<()> {
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || mknodat(dir, name, kind, mode, device))
}

/// Makes a symbolic link.
pub(in crate::volume) fn make_link<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    text: &str,
) -> Result<()> {
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || symlinkat(text, dir, name))
}

/// Gives the inode that is held a further name.
pub(in crate::volume) fn add_name<'n>(
    inode: &Handle,
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<()> {
    let (dir, name, inode) = (dir.as_fd(), name.into().0, inode.path());
    lender::with_access(dir, || linkat(CWD, &*inode, dir, name, AtFlags::SYMLINK_FOLLOW))
}

/// Removes an entry that is not a directory.
pub(in crate::volume) fn remove<'n>(dir: impl AsFd, name: impl Into<Name<'n>>) -> Result<()> {
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || unlinkat(dir, name, AtFlags::empty()))
}

/// Removes an empty directory.
pub(in crate::volume) fn remove_dir<'n>(dir: impl AsFd, name: impl Into<Name<'n>>) -> Result<()> {
    let (dir, name) = (dir.as_fd(), name.into().0);
    lender::with_access(dir, || unlinkat(dir, name, AtFlags::REMOVEDIR))
}

/// Renames an entry.
pub(in crate::volume) fn rename<'n>(
    (from, old): (impl AsFd, impl Into<Name<'n>>),
    (to, new): (impl AsFd, impl Into<Name<'n>>),
    flags: RenameFlags,
) -> Result<()> {
    let (from, old, to, new) = (from.as_fd(), old.into().0, to.as_fd(), new.into().0);
    lender::with_access_to_both(from, to, || renameat_with(from, old, to, new, flags))
}

fn resolve(dir: impl AsFd, name: Name<'_>, flags: OFlags) -> Result<OwnedFd> {
    let (dir, flags) = (dir.as_fd(), flags | NEVER_FOLLOW);
    if has_openat2() {
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        return lender::with_access(dir, || openat2(dir, name.0, flags, Mode::empty(), beneath));
    }
    resolve_by_device(dir, name, flags)
}

/// The same without `openat2`: a mount of the same filesystem is not told from a directory. The device
/// is the kernel's to tell, whatever is mounted there, and is looked at before anything is opened.
fn resolve_by_device(dir: impl AsFd, name: Name<'_>, flags: OFlags) -> Result<OwnedFd> {
    let (dir, path) = (dir.as_fd(), OFlags::PATH | NEVER_FOLLOW);
    let held = lender::with_access(dir, || openat(dir, name.0, path, Mode::empty()))?;
    let device = |fd: BorrowedFd<'_>| {
        let found = statx(fd, "", AtFlags::EMPTY_PATH | DO_NOT_ASK, StatxFlags::empty())?;
        Ok((found.stx_dev_major, found.stx_dev_minor))
    };
    if device(held.as_fd())? != device(dir)? {
        return Err(Errno::XDEV);
    }
    if flags.contains(OFlags::PATH) {
        return Ok(held);
    }
    let opened = lender::with_access(dir, || openat(dir, name.0, flags, Mode::empty()))?;
    if device(opened.as_fd())? == device(dir)? { Ok(opened) } else { Err(Errno::XDEV) }
}

fn has_openat2() -> bool {
    static THERE: OnceLock<bool> = OnceLock::new();
    *THERE.get_or_init(|| {
        let beneath = ResolveFlags::BENEATH;
        openat2(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::empty())
            .and_then(|root| {
                openat2(root, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath)
            })
            .is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_mounts_nor_links_are_followed_with_or_without_openat2() {
        let root = openat(CWD, "/", READABLE_DIR | NEVER_FOLLOW, Mode::empty()).unwrap();
        let proc = Name::literal("proc");
        let flags = OFlags::PATH | NEVER_FOLLOW;
        assert_eq!(resolve(&root, proc, OFlags::PATH).unwrap_err(), Errno::XDEV);
        assert_eq!(resolve_by_device(&root, proc, flags).unwrap_err(), Errno::XDEV);
        let proc = openat(&root, "proc", READABLE_DIR | NEVER_FOLLOW, Mode::empty()).unwrap();
        let link = Name::literal("self");
        for opened in [
            resolve(&proc, link, OFlags::RDONLY),
            resolve_by_device(&proc, link, OFlags::RDONLY | NEVER_FOLLOW),
        ] {
            assert_eq!(opened.unwrap_err(), Errno::LOOP);
        }
        assert_eq!(open_file(&proc, link, OFlags::RDONLY).unwrap_err(), Errno::STALE);
        let held = hold(&proc, link).unwrap();
        assert_eq!(FileType::from_raw_mode(held.found().st_mode), FileType::Symlink);
    }

    #[test]
    fn a_backing_name_cannot_lead_out_of_its_directory() {
        for name in ["", ".", "..", "/", "a/b", "/etc", "a\0b", "..\0", &"n".repeat(256)] {
            assert_eq!(BackingName::new(name.as_bytes()), None, "{name:?}");
        }
        for name in ["a", "...", "..a", ".kmsfs", " ", "\n", &"n".repeat(255)] {
            assert_eq!(BackingName::new(name.as_bytes()).unwrap().bytes(), name.as_bytes());
        }
        let long = BackingName::new("n".repeat(255).as_bytes()).unwrap();
        assert_eq!(long.with(".name"), None);
    }
}
