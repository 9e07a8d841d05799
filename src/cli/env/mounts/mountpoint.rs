//! The directory that a vault is mounted on: held from the first look at it until the mount has ended.
//!
//! Its path is for people. Whoever may rename it, or a directory above it, changes what the path
//! leads to; what was checked is what is mounted on, and what is unmounted.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::mountinfo::{self, Mounted};
use crate::cli::report::exit::{CliError, Exit};

/// What to do about a mountpoint that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Missing {
    /// Make the directory.
    Make,
    /// Say so.
    Refuse,
}

/// A directory to mount on.
#[derive(Debug)]
pub(in crate::cli) struct Mountpoint {
    dir: OwnedFd,
    path: PathBuf,
}

/// Who else can put another directory in the place of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Exchanger {
    /// The directory that lets them.
    dir: PathBuf,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Owner(u32),
    Mode(u32),
}

impl fmt::Display for Exchanger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.dir.display())?;
        match self.why {
            Why::Owner(uid) => write!(f, "belongs to user {uid}"),
            Why::Mode(mode) => write!(f, "has mode {mode:04o}"),
        }
    }
}

impl Mountpoint {
    /// Takes hold of a usable mountpoint: a directory on which nothing is mounted, and an empty one
    /// unless `nonempty`.
    ///
    /// Errors: `Mountpoint`.
    pub(in crate::cli) fn find(
        named: &Path,
        missing: Missing,
        nonempty: bool,
    ) -> Result<Self, CliError> {
        let failed = |error: io::Error| failure("cannot use the mountpoint", named, &error);
        let dir = hold(named, missing)?;
        let path = path_of(dir.as_fd()).map_err(failed)?;
        let (mountpoint, place) = (Self { dir, path: path.clone() }, path.display());
        let refuse = |what: String| CliError::new(Exit::Mountpoint, what);
        if mountpoint.is_mounted_on()? {
            return Err(refuse(format!("something is mounted at {place} already"))
                .advise("'kmsfs umount' ends a mount, also one whose daemon is dead"));
        }
        let stat = fstat(&mountpoint.dir).map_err(|errno| failed(errno.into()))?;
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(refuse(format!("the mountpoint {place} is not a directory")));
        }
        if !nonempty && !mountpoint.is_empty().map_err(|errno| failed(errno.into()))? {
            return Err(refuse(format!("the mountpoint {place} is not empty"))
                .advise("its files would be hidden: use another directory, or -o nonempty"));
        }
        Ok(mountpoint)
    }

    /// Its path when it was looked at.
    pub(in crate::cli) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory.
    pub(in crate::cli) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The topmost mount of kmsfs that lies on it.
    ///
    /// Errors: those of reading `/proc`. Nothing is asked of any filesystem.
    pub(in crate::cli) fn mounted(&self) -> io::Result<Option<Mounted>> {
        let (path, below) = (path_of(self.dir())?, mount_of(self.dir())?);
        let lies_on_it = |mount: &Mounted| mount.parent == below && mount.mountpoint == path;
        Ok(mountinfo::read()?.into_iter().rfind(lies_on_it))
    }

    /// The directory that it is in, whatever became of those above. What is mounted over that is not
    /// entered.
    ///
    /// Errors: `XDEV` if something is.
    pub(in crate::cli) fn above(&self) -> io::Result<OwnedFd> {
        match openat2(&self.dir, "..", UPWARDS, Mode::empty(), ResolveFlags::NO_XDEV) {
            // Before Linux 5.6, and in sandboxes that refuse the call.
            Err(Errno::NOSYS | Errno::PERM) => Ok(openat(&self.dir, "..", UPWARDS, Mode::empty())?),
            other => Ok(other?),
        }
    }

    /// Who else can put another directory in its place, so that what is written there later does not
    /// reach the vault. `None` if nobody can.
    ///
    /// Errors: those of looking at the directories above it.
    pub(in crate::cli) fn exchanger(&self) -> io::Result<Option<Exchanger>> {
        let (mut entry, mut stat) =
            (openat(&self.dir, ".", UPWARDS, Mode::empty())?, fstat(&self.dir)?);
        let mut found = None;
        loop {
            let dir = openat(&entry, "..", UPWARDS, Mode::empty())?;
            let above = fstat(&dir)?;
            if (above.st_dev, above.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(found);
            }
            match lets_exchange(&above, &stat) {
                Some(why) if found.is_none() => {
                    found = Some(Exchanger { dir: path_of(dir.as_fd())?, why });
                }
                // Nobody else can reach what is below it.
                None if !is_strangers(&above) && above.st_mode & ENTER == 0 => found = None,
                _ => {}
            }
            (entry, stat) = (dir, above);
        }
    }

    /// True if it is the root of a filesystem: then something is mounted where it seems to be.
    fn is_mounted_on(&self) -> Result<bool, CliError> {
        let of_it = || mountinfo::is_root(mount_of(self.dir())?, &self.path);
        of_it().map_err(|error| failure("cannot use the mountpoint", &self.path, &error))
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut entries = rustix::fs::Dir::new(openat(&self.dir, ".", flags, Mode::empty())?)?;
        let other = entries.find(|entry| {
            !entry.as_ref().is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))
        });
        other.map_or(Ok(true), |entry| entry.map(|_| false))
    }
}

/// A path that leads to what is open, as long as it is.
pub(in crate::cli) fn by_number(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn hold(named: &Path, missing: Missing) -> Result<OwnedFd, CliError> {
    let held = || openat(CWD, named, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let failed = |doing: &str, error: io::Error| failure(doing, named, &error);
    match held() {
        Err(Errno::NOENT) if missing == Missing::Make => {
            std::fs::create_dir_all(named)
                .map_err(|error| failed("cannot make the mountpoint", error))?;
            held().map_err(|errno| failed("cannot use the mountpoint", errno.into()))
        }
        Err(Errno::NOENT) => {
            let what = format!("the mountpoint {} does not exist", named.display());
            Err(CliError::new(Exit::Mountpoint, what).advise("make the directory, or add --create"))
        }
        other => other.map_err(|errno| failed("cannot use the mountpoint", errno.into())),
    }
}

/// The path that leads to a directory now.
fn path_of(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(by_number(fd))
}

/// The number of the mount through which something was opened. Source: proc_pid_fdinfo(5).
pub(in crate::cli) fn mount_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Why others may exchange an entry of a directory: in one with the sticky bit, only its owner and the
/// entry's can.
fn lets_exchange(dir: &Stat, entry: &Stat) -> Option<Why> {
    let owns_group = dir.st_gid == 0 || dir.st_gid == getegid().as_raw();
    let writers = if owns_group { OTHERS_WRITE } else { OTHERS_WRITE | GROUP_WRITES };
    if is_strangers(dir) {
        Some(Why::Owner(dir.st_uid))
    } else if dir.st_mode & writers == 0 {
        None
    } else if dir.st_mode & STICKY == 0 {
        Some(Why::Mode(dir.st_mode & 0o7777))
    } else {
        is_strangers(entry).then_some(Why::Mode(dir.st_mode & 0o7777))
    }
}

fn is_strangers(stat: &Stat) -> bool {
    stat.st_uid != 0 && stat.st_uid != geteuid().as_raw()
}

fn failure(doing: &str, path: &Path, error: &io::Error) -> CliError {
    let mut failure = CliError::io(format!("{doing} {}", path.display()), error);
    failure.exit = Exit::Mountpoint;
    failure
}

const UPWARDS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// The bits by which a directory can be entered by others than its owner.
const ENTER: u32 = 0o011;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;
const STICKY: u32 = 0o1000;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn find(path: &Path, nonempty: bool) -> Result<Mountpoint, CliError> {
        Mountpoint::find(path, Missing::Refuse, nonempty)
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("above/m")).unwrap();
        dir.canonicalize().unwrap()
    }

    #[test]
    fn the_root_directory_is_no_mountpoint() {
        let error = find(Path::new("/"), false).unwrap_err();
        assert_eq!(error.what, "something is mounted at / already");
        assert_eq!(find(Path::new("/proc/."), false).unwrap_err().exit, Exit::Mountpoint);
    }

    #[test]
    fn a_full_directory_is_no_mountpoint_unless_asked_for() {
        let here = std::env::current_dir().unwrap();
        let error = find(&here, false).unwrap_err();
        assert!(error.what.ends_with("is not empty"), "{}", error.what);
        assert_eq!(find(&here, true).unwrap().path(), here);
        let error = find(&here.join("Cargo.toml"), false).unwrap_err();
        assert!(error.what.ends_with("is not a directory"), "{}", error.what);
        let error = find(&here.join("missing"), false).unwrap_err();
        assert!(error.what.ends_with("does not exist"), "{}", error.what);
    }

    #[test]
    fn what_is_held_is_found_again_where_it_was_moved_to() {
        let dir = scratch("held");
        let held = find(&dir.join("above/m"), false).unwrap();
        fs::rename(dir.join("above"), dir.join("moved")).unwrap();
        fs::create_dir_all(dir.join("above/m")).unwrap();
        assert_eq!(path_of(held.above().unwrap().as_fd()).unwrap(), dir.join("moved"));
        assert_eq!(held.mounted().unwrap(), None);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_lets_them_exchange_what_is_in_it() {
        let dir = scratch("exchange");
        let mode = |name: &str, mode| {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(".", 0o700);
        let held = find(&dir.join("above/m"), false).unwrap();
        for (bits, expected) in [(0o755, false), (0o777, true), (0o1777, false), (0o700, false)] {
            mode("above", bits);
            // What others cannot reach, they cannot exchange.
            assert_eq!(held.exchanger().unwrap(), None);
            mode(".", 0o755);
            let found = held.exchanger().unwrap();
            assert_eq!(found.is_some(), expected, "{bits:o}: {found:?}");
            mode(".", 0o700);
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
