//! The way to a Unix socket, walked step by step: whoever can change it can lead a client elsewhere.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;

/// A socket that was reached, and the directories in which its way was looked up, also that of every
/// symbolic link.
#[derive(Debug)]
pub(super) struct Way {
    socket: OwnedFd,
    dirs: Vec<Dir>,
}

/// A directory as it was when something was looked up in it.
#[derive(Debug)]
struct Dir {
    path: PathBuf,
    owner: u32,
    mode: u32,
}

impl Way {
    /// Walks along an absolute path. Each directory is held before it is looked at and before anything
    /// is looked up in it, so nothing that happens to the names later changes where this leads.
    /// Errors: those of `open(2)`.
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let mut walk = Walk::begin()?;
        walk.prepend(path);
        while let Some(name) = walk.rest.pop_front() {
            if let Some(socket) = walk.step(&name)? {
                return Ok(Self { socket, dirs: walk.dirs });
            }
        }
        // It leads to a directory. Connecting there would say the same.
        Err(Errno::CONNREFUSED.into())
    }

    /// A path that means the socket that was reached, whatever its name means by now. Source: proc(5).
    pub(super) fn end(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.socket.as_raw_fd()))
    }

    /// A directory on the way in which somebody else than these users could have put something. A
    /// sticky bit does not help: who comes first makes the entry.
    pub(super) fn changeable_by_others(&self, users: &[u32]) -> Option<&Path> {
        let by_others = |dir: &&Dir| dir.mode & OTHERS_WRITE != 0 || !users.contains(&dir.owner);
        self.dirs.iter().find(by_others).map(|dir| dir.path.as_path())
    }
}

struct Walk {
    at: OwnedFd,
    /// `at`, for messages.
    path: PathBuf,
    rest: VecDeque<OsString>,
    dirs: Vec<Dir>,
    links: u32,
}

impl Walk {
    fn begin() -> io::Result<Self> {
        let (path, rest) = (PathBuf::from("/"), VecDeque::new());
        let at = openat(CWD, &path, DIRECTORY, Mode::empty())?;
        let mut walk = Self { at, path, rest, dirs: Vec::new(), links: 0 };
        walk.look()?;
        Ok(walk)
    }

    fn prepend(&mut self, path: &Path) {
        let names = path.components().filter(|name| *name != Component::CurDir);
        for name in names.rev() {
            self.rest.push_front(name.as_os_str().to_owned());
        }
    }

    /// Follows one path component. Returns its handle if it is the last and not a directory.
    fn step(&mut self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        match openat(&self.at, name, DIRECTORY, Mode::empty()) {
            Ok(dir) => self.enter(dir, name).map(|()| None),
            Err(Errno::NOTDIR | Errno::LOOP) => self.follow(name),
            Err(error) => Err(error.into()),
        }
    }

    fn enter(&mut self, dir: OwnedFd, name: &OsStr) -> io::Result<()> {
        self.at = dir;
        match name == ".." {
            true => drop(self.path.pop()),
            false => self.path.push(name),
        }
        self.look()
    }

    fn look(&mut self) -> io::Result<()> {
        let found = fstat(&self.at)?;
        self.dirs.push(Dir { path: self.path.clone(), owner: found.st_uid, mode: found.st_mode });
        Ok(())
    }

    fn follow(&mut self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let found = openat(&self.at, name, HANDLE, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::Symlink {
            return match self.rest.is_empty() {
                true => Ok(Some(found)),
                false => Err(Errno::NOTDIR.into()),
            };
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&found, "", Vec::new())?;
        self.prepend(Path::new(&OsString::from_vec(target.into_bytes())));
        Ok(None)
    }
}

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = HANDLE.union(OFlags::DIRECTORY);
const OTHERS_WRITE: u32 = 0o022;
/// As many as the kernel follows. Source: path_resolution(7).
const MOST_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-way-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir.canonicalize().unwrap()
    }

    fn dirs(way: &Way) -> Vec<PathBuf> {
        let mut dirs: Vec<_> = way.dirs.iter().map(|dir| dir.path.clone()).collect();
        dirs.dedup();
        dirs
    }

    #[test]
    fn every_directory_in_which_a_link_lies_is_on_the_way() {
        let dir = scratch("links");
        for name in ["ways", "near", "server"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let _listener = UnixListener::bind(dir.join("server/s")).unwrap();
        symlink("../ways/relative/./s", dir.join("near/s")).unwrap();
        symlink(dir.join("server"), dir.join("ways/relative")).unwrap();
        let way = Way::to(&dir.join("near/s")).unwrap();
        let mut expected: Vec<_> = dir.ancestors().map(Path::to_owned).collect();
        expected.reverse();
        expected.extend([dir.join("near"), dir.clone(), dir.join("ways")]);
        expected.extend(dir.ancestors().map(Path::to_owned).collect::<Vec<_>>().into_iter().rev());
        expected.push(dir.join("server"));
        assert_eq!(dirs(&way), expected);
        UnixStream::connect(way.end()).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_change_is_found() {
        let dir = scratch("open");
        fs::create_dir(dir.join("open")).unwrap();
        symlink("open/s", dir.join("s")).unwrap();
        let _listener = UnixListener::bind(dir.join("open/s")).unwrap();
        let own = rustix::process::geteuid().as_raw();
        for mode in [0o777, 0o775, 0o757, 0o1777] {
            fs::set_permissions(dir.join("open"), PermissionsExt::from_mode(mode)).unwrap();
            let mut way = Way::to(&dir.join("s")).unwrap();
            way.dirs.retain(|found| found.path.starts_with(&dir));
            assert_eq!(way.changeable_by_others(&[own]), Some(&*dir.join("open")), "{mode:o}");
        }
        fs::set_permissions(dir.join("open"), PermissionsExt::from_mode(0o755)).unwrap();
        let mut way = Way::to(&dir.join("s")).unwrap();
        way.dirs.retain(|found| found.path.starts_with(&dir));
        assert_eq!(way.changeable_by_others(&[own]), None);
        assert!(way.changeable_by_others(&[own + 1]).is_some());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_was_reached_stays_reached_when_its_name_means_something_else() {
        let dir = scratch("race");
        let first = UnixListener::bind(dir.join("s")).unwrap();
        let way = Way::to(&dir.join("s")).unwrap();
        fs::rename(dir.join("s"), dir.join("aside")).unwrap();
        let second = UnixListener::bind(dir.join("s")).unwrap();
        UnixStream::connect(way.end()).unwrap();
        second.set_nonblocking(true).unwrap();
        first.accept().unwrap();
        assert_eq!(second.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn ways_that_lead_nowhere_end() {
        let dir = scratch("nowhere");
        symlink("b", dir.join("a")).unwrap();
        symlink("a", dir.join("b")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        let errno = |path: &Path| Way::to(path).unwrap_err().raw_os_error();
        for (path, expected) in [
            ("a", Errno::LOOP),
            ("none", Errno::NOENT),
            ("file/s", Errno::NOTDIR),
            (".", Errno::CONNREFUSED),
            ("../..", Errno::CONNREFUSED),
        ] {
            assert_eq!(errno(&dir.join(path)), Some(expected.raw_os_error()), "{path}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
