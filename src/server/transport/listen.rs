//! Addresses to listen at: TCP addresses, Unix sockets, and sockets that systemd passes.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::net::AddressFamily;

use crate::server::config::{ServerError, SocketAccess};
use crate::server::transport::socket_file::SocketFile;

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
                let (listener, file) = SocketFile::listen(path, access)?;
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
            Self::Unix(_, Some(file)) => write!(f, "unix:{file}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!("unix:/run/x".parse::<Listen>().unwrap(), Listen::Unix("/run/x".into()));
        assert_eq!("[::1]:80".parse::<Listen>().unwrap(), Listen::Tcp("[::1]:80".into()));
        for wrong in ["", "unix:", "localhost", ":80", "localhost:http", "1.2.3.4:70000"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
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
