//! Addresses to listen at: TCP addresses, Unix sockets, and sockets that systemd passes.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Gid, Mode};
use rustix::net::AddressFamily;

use crate::server::config::{ServerError, SocketAccess};

/// An address to listen at, as the user writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `unix:PATH`
    Unix(PathBuf),
    /// `ADDRESS:PORT` or `HOST:PORT`
    Tcp(String),
}

impl FromStr for Listen {
    type Err = ServerError;

    /// Errors: `Listen`.
    fn from_str(text: &str) -> Result<Self, ServerError> {
        let refuse = |why| ServerError::Listen { text: text.to_owned(), why };
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if path.as_os_str().is_empty() {
                return Err(refuse("unix: is followed by a path"));
            }
            return Ok(Self::Unix(path));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| refuse("a port is missing"))?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(refuse("unix:PATH, ADDRESS:PORT or HOST:PORT is expected"));
        }
        Ok(Self::Tcp(text.to_owned()))
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(in crate::server) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, Option<SocketFile>),
}

impl Listening {
    /// Opens all sockets of an address: a name may have several addresses.
    pub(in crate::server) fn open(
        address: &Listen,
        access: SocketAccess,
    ) -> Result<Vec<Self>, ServerError> {
        match address {
            Listen::Unix(path) => {
                let listener = open_unix(path, access)?;
                let file = SocketFile::of(path)?;
                Ok(vec![Self::Unix(listener, Some(file))])
            }
            Listen::Tcp(text) => {
                let found =
                    text.to_socket_addrs().map_err(ServerError::io(format!("find {text}")))?;
                let open = |address: SocketAddr| {
                    TcpListener::bind(address)
                        .map(Self::Tcp)
                        .map_err(ServerError::io(format!("listen at {address}")))
                };
                found.map(open).collect()
            }
        }
    }

    /// A listening socket that was opened by somebody else.
    pub(in crate::server) fn inherited(socket: OwnedFd) -> Result<Self, ServerError> {
        let failed = || ServerError::io("use the socket that was passed");
        match rustix::net::sockopt::socket_domain(&socket) {
            Ok(AddressFamily::UNIX) => Ok(Self::Unix(UnixListener::from(socket), None)),
            Ok(AddressFamily::INET | AddressFamily::INET6) => {
                Ok(Self::Tcp(TcpListener::from(socket)))
            }
            Ok(_) => Err(failed()(io::Error::other("it is neither TCP nor a Unix socket"))),
            Err(error) => Err(failed()(error.into())),
        }
    }

    /// The TCP address, if others than this machine can reach it.
    pub(in crate::server) fn exposed(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().ok().filter(|address| !address.ip().is_loopback())
            }
            Self::Unix(..) => None,
        }
    }
}

impl fmt::Display for Listening {
    /// As a client names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("a TCP socket"),
            },
            Self::Unix(_, Some(file)) => write!(f, "unix:{}", file.path.display()),
            Self::Unix(listener, None) => {
                let address = listener.local_addr();
                match address.as_ref().ok().and_then(|address| address.as_pathname()) {
                    Some(path) => write!(f, "unix:{}", path.display()),
                    None => f.write_str("a Unix socket"),
                }
            }
        }
    }
}

/// The name of a Unix socket in the filesystem: removed at the end, unless it is another's by then.
#[derive(Debug)]
pub(in crate::server) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> Result<Self, ServerError> {
        let inode =
            inode(path).map_err(ServerError::io(format!("look at '{}'", path.display())))?;
        Ok(Self { path: path.to_owned(), inode })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|found| found == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The socket appears under its name only when it has its mode and group.
fn open_unix(path: &Path, access: SocketAccess) -> Result<UnixListener, ServerError> {
    make_way(path)?;
    let failed = || ServerError::io(format!("listen at 'unix:{}'", path.display()));
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&draft);
    rustix::process::umask(mask);
    let listener = bound.map_err(failed())?;
    let ready = admit(&draft, access).and_then(|()| fs::rename(&draft, path));
    if let Err(error) = ready {
        let _ = fs::remove_file(&draft);
        return Err(failed()(error));
    }
    Ok(listener)
}

fn admit(path: &Path, access: SocketAccess) -> io::Result<()> {
    if let Some(group) = access.group {
        rustix::fs::chown(path, None, Some(Gid::from_raw(group)))?;
    }
    fs::set_permissions(path, PermissionsExt::from_mode(access.mode))
}

/// A socket that nobody listens at is left over; anything else stays.
fn make_way(path: &Path) -> Result<(), ServerError> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(ServerError::io(format!("look at '{}'", path.display())))?,
    };
    if !found.file_type().is_socket() {
        return Err(ServerError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        _ => Err(ServerError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket_path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("kmsfs-{}-{name}.sock", std::process::id()))
    }

    fn open(path: &Path) -> Result<Vec<Listening>, ServerError> {
        let access = SocketAccess { mode: 0o660, group: None };
        Listening::open(&Listen::Unix(path.to_owned()), access)
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!("unix:/run/x".parse::<Listen>().unwrap(), Listen::Unix("/run/x".into()));
        assert_eq!("[::1]:80".parse::<Listen>().unwrap(), Listen::Tcp("[::1]:80".into()));
        for wrong in ["", "unix:", "localhost", ":80", "localhost:http", "1.2.3.4:70000"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_the_server() {
        let path = socket_path("mode");
        let listening = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_left_over_is_replaced_and_one_in_use_is_not() {
        let path = socket_path("stale");
        drop(UnixListener::bind(&path).unwrap());
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(ServerError::InUse(_))));
        drop(first);
        fs::write(&path, "precious").unwrap();
        assert!(matches!(open(&path), Err(ServerError::NotASocket(_))));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_others_can_reach_is_known() {
        let open = |text: &str| {
            Listening::open(&text.parse().unwrap(), SocketAccess::default()).unwrap().remove(0)
        };
        assert_eq!(open("127.0.0.1:0").exposed(), None);
        assert!(open("0.0.0.0:0").exposed().is_some());
        let inherited = Listening::inherited(TcpListener::bind("127.0.0.1:0").unwrap().into());
        assert!(matches!(inherited, Ok(Listening::Tcp(_))));
    }
}
