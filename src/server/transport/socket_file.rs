//! The name of a Unix socket in the filesystem.
//!
//! Others may be able to write to its directory, and may put something else under any name there at any
//! moment. So the socket is made, and gets its mode and group, in a directory of its own that nobody else
//! can enter, and everything goes through handles. A crash meanwhile leaves that directory behind.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, chmodat, chownat, fstat, mkdirat, openat,
    renameat, statat, unlinkat,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::crypto::random;
use crate::server::config::{ServerError, SocketAccess};

/// The name of a socket that this process listens at: removed at the end, unless it is another's by then.
#[derive(Debug)]
pub(in crate::server) struct SocketFile {
    path: PathBuf,
    dir: OwnedFd,
    name: OsString,
    /// Keeps the inode's number from becoming another file's.
    socket: OwnedFd,
}

impl SocketFile {
    /// Listens at `path`. The socket appears under its name only when it has its mode and group.
    /// Errors: `InUse`, `NotASocket`, `Io`.
    pub(in crate::server) fn listen(
        path: &Path,
        access: SocketAccess,
    ) -> Result<(UnixListener, Self), ServerError> {
        let failed = || ServerError::io(format!("listen at 'unix:{}'", path.display()));
        let (dir, name) = place(path).map_err(failed())?;
        make_way(&dir, &name, path)?;
        let draft = Draft::make(&dir).map_err(failed())?;
        let (listener, socket) = draft.listen(access).map_err(failed())?;
        draft.publish(&name).map_err(failed())?;
        drop(draft);
        Ok((listener, Self { path: path.to_owned(), dir, name, socket }))
    }
}

impl fmt::Display for SocketFile {
    /// The path, as it was given.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        let is_ours = |(there, ours): &(Stat, Stat)| {
            (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        };
        if there
            .and_then(|there| Ok((there, fstat(&self.socket)?)))
            .is_ok_and(|both| is_ours(&both))
        {
            let _ = unlinkat(&self.dir, &self.name, AtFlags::empty());
        }
    }
}

/// The directory in which a path ends, and the name there.
fn place(path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path ends in no name"))?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    let dir = openat(CWD, above, DIRECTORY, Mode::empty())?;
    Ok((dir, name.to_owned()))
}

/// A socket that nobody listens at is left over; anything else stays.
fn make_way(dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), ServerError> {
    let failed = || ServerError::io(format!("look at '{}'", path.display()));
    let found = match openat(dir, name, HANDLE, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        found => found.map_err(|errno| failed()(errno.into()))?,
    };
    let stat = fstat(&found).map_err(|errno| failed()(errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(ServerError::NotASocket(path.to_owned()));
    }
    match connect(&found) {
        Err(Errno::CONNREFUSED) => Ok(()),
        _ => Err(ServerError::InUse(path.to_owned())),
    }
}

/// Connects without waiting: one whose queue is full is in use.
fn connect(socket: &OwnedFd) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let own = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&own, &SocketAddrUnix::new(by_handle(socket))?)
}

/// A directory in which nobody else can do anything, and a socket in it. Vanishes.
struct Draft<'a> {
    above: &'a OwnedFd,
    name: String,
    dir: OwnedFd,
}

impl<'a> Draft<'a> {
    fn make(above: &'a OwnedFd) -> io::Result<Self> {
        let mark = random::id16().map_err(io::Error::other)?;
        let name = format!(".kmsfs.tmp.{}", base16ct::lower::encode_string(&mark));
        mkdirat(above, &name, Mode::RWXU)?;
        let dir = openat(above, &name, DIRECTORY.union(OFlags::NOFOLLOW), Mode::empty())?;
        let draft = Self { above, name, dir };
        // Others may have put another directory in its place since: of theirs, or one of this user's
        // that is not closed to them.
        let found = fstat(&draft.dir)?;
        let own = rustix::process::geteuid().as_raw();
        match found.st_uid == own && found.st_mode & BY_OTHERS == 0 {
            true => Ok(draft),
            false => Err(io::Error::other("somebody else has changed the directory meanwhile")),
        }
    }

    /// Listens, and gives the socket its mode and group.
    fn listen(&self, access: SocketAccess) -> io::Result<(UnixListener, OwnedFd)> {
        let listener = UnixListener::bind(by_handle(&self.dir).join(SOCKET))?;
        if let Some(group) = access.group {
            let group = Some(Gid::from_raw(group));
            chownat(&self.dir, SOCKET, None, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        chmodat(&self.dir, SOCKET, Mode::from_raw_mode(access.mode), AtFlags::empty())?;
        let socket = openat(&self.dir, SOCKET, HANDLE, Mode::empty())?;
        Ok((listener, socket))
    }

    fn publish(&self, name: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.dir, SOCKET, self.above, name)?)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let _ = unlinkat(&self.dir, SOCKET, AtFlags::empty());
        // Another directory that has the name by now stays, unless it is empty.
        let _ = unlinkat(self.above, &self.name, AtFlags::REMOVEDIR);
    }
}

/// A path to what is open, whatever its name means by now. Source: proc(5).
fn by_handle(handle: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const BY_OTHERS: u32 = 0o077;
const SOCKET: &str = "socket";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    const ACCESS: SocketAccess = SocketAccess { mode: 0o660, group: None };

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-socket-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn names(dir: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    fn listen(path: &Path) -> Result<(UnixListener, SocketFile), ServerError> {
        SocketFile::listen(path, ACCESS)
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_the_server() {
        let dir = scratch("mode");
        let listening = listen(&dir.join("s")).unwrap();
        assert_eq!(fs::metadata(dir.join("s")).unwrap().mode() & 0o7777, 0o660);
        assert_eq!(names(&dir), ["s"]);
        drop(listening);
        assert!(names(&dir).is_empty());
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_socket_left_over_is_replaced_and_one_in_use_is_not() {
        let dir = scratch("stale");
        let path = dir.join("s");
        drop(UnixListener::bind(&path).unwrap());
        let first = listen(&path).unwrap();
        assert!(matches!(listen(&path), Err(ServerError::InUse(_))));
        drop(first);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(listen(&path), Err(ServerError::NotASocket(_))));
        symlink("elsewhere", dir.join("link")).unwrap();
        assert!(matches!(listen(&dir.join("link")), Err(ServerError::NotASocket(_))));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_has_the_name_of_the_socket_at_the_end_stays() {
        let dir = scratch("end");
        let path = dir.join("s");
        let listening = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(listening);
        assert!(path.exists());
        drop(other);
        fs::remove_dir_all(&dir).unwrap();
    }

    /// The socket was made under a name beside its own that everybody knew, and what had that name before
    /// was removed.
    #[test]
    fn regression_what_lies_beside_the_socket_stays() {
        let dir = scratch("beside");
        let beside = format!("s.{}", std::process::id());
        fs::write(dir.join(&beside), "precious").unwrap();
        let _listening = listen(&dir.join("s")).unwrap();
        assert_eq!(names(&dir), ["s", &*beside]);
        fs::remove_dir_all(&dir).unwrap();
    }

    /// Mode and group were changed by the name: whoever may write to the directory chose what got them.
    #[test]
    fn regression_what_others_put_in_the_place_of_a_new_socket_keeps_its_mode() {
        let dir = scratch("place");
        let (victim, above) = (dir.join("victim"), dir.join("above"));
        fs::write(&victim, "").unwrap();
        fs::set_permissions(&victim, PermissionsExt::from_mode(0o600)).unwrap();
        fs::create_dir(&above).unwrap();
        let above_handle = openat(CWD, &above, DIRECTORY, Mode::empty()).unwrap();
        let draft = Draft::make(&above_handle).unwrap();
        let place = above.join(&draft.name);
        fs::rename(&place, dir.join("aside")).unwrap();
        fs::create_dir(&place).unwrap();
        symlink(&victim, place.join(SOCKET)).unwrap();
        let (_listener, socket) = draft.listen(ACCESS).unwrap();
        draft.publish(OsStr::new("s")).unwrap();
        drop(draft);
        assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
        let published = fs::symlink_metadata(above.join("s")).unwrap();
        assert_eq!(published.ino(), fstat(&socket).unwrap().st_ino);
        assert_eq!(published.mode() & 0o777, 0o660);
        fs::remove_dir_all(&dir).unwrap();
    }
}
