//! What a server is told to do, and why it does not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The options of a server.
#[derive(Debug, Clone)]
pub struct Config {
    /// The region of requests that name none: unsigned ones.
    pub region: String,
    /// What happens to requests without a signature.
    pub unsigned: Unsigned,
    /// Who may connect to a Unix socket.
    pub socket: SocketAccess,
    /// Certificate and key, for TLS on every TCP listener.
    pub tls: Option<TlsFiles>,
    /// Where metrics are served, on loopback.
    pub metrics: Option<SocketAddr>,
    /// How much a server takes at once.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "local".to_owned(),
            unsigned: Unsigned::Refused,
            socket: SocketAccess::default(),
            tls: None,
            metrics: None,
            limits: Limits::default(),
        }
    }
}

/// What happens to requests that no known access key has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// They are refused.
    Refused,
    /// They act for the Unix user on a Unix socket, and for the account's root on loopback.
    Accepted,
}

/// Mode and group of a Unix socket. Connecting needs the right to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketAccess {
    /// The permission bits.
    pub mode: u32,
    /// The group; none keeps the server's.
    pub group: Option<u32>,
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self { mode: 0o600, group: None }
    }
}

/// The files of a TLS identity, in PEM form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate with its chain.
    pub certificate: PathBuf,
    /// The private key, which only its owner may read.
    pub key: PathBuf,
}

/// How much a server takes at once, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections. If there is one more, one that waits for a request is closed; if none does, the
    /// new one is answered with status 503.
    pub connections: usize,
    /// Connections of one peer: a user on Unix sockets, an address on TCP.
    pub connections_per_peer: usize,
    /// Operations that run at the same time; others wait.
    pub calls: usize,
    /// Operations that make RSA keys at the same time. They are not among `calls`.
    pub heavy: usize,
    /// The same of one principal.
    pub heavy_per_principal: usize,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// For the first byte of a connection, after a TLS handshake where there is one.
    pub first_time: Duration,
    /// For the whole head of a request, from its first byte.
    pub head_time: Duration,
    /// For the next request after an answer.
    pub idle_time: Duration,
    /// For the whole body of a request.
    pub body_time: Duration,
    /// For a free slot among the operations; then the answer is status 503.
    pub queue_time: Duration,
    /// The same for operations that make RSA keys.
    pub heavy_time: Duration,
    /// For a client to take some of its answer, and for a TLS handshake.
    pub stall_time: Duration,
    /// For requests under way when the server is told to stop.
    pub drain_time: Duration,
}

impl Limits {
    /// These, with so many connections, of which no peer gets the last quarter.
    #[must_use]
    pub fn with_connections(self, connections: usize) -> Self {
        Self { connections, connections_per_peer: connections - connections / 4, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_peer: 768,
            calls: 32,
            heavy: std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)),
            heavy_per_principal: 1,
            body: 128 << 10,
            head: 16 << 10,
            first_time: Duration::from_secs(10),
            head_time: Duration::from_secs(5),
            idle_time: Duration::from_secs(30),
            body_time: Duration::from_secs(10),
            queue_time: Duration::from_secs(5),
            heavy_time: Duration::from_secs(50),
            stall_time: Duration::from_secs(10),
            drain_time: Duration::from_secs(20),
        }
    }
}

/// Why a server does not start.
#[derive(Debug)]
pub enum ServerError {
    /// The text is no address to listen at.
    Listen {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing to listen at was named, and nothing was passed by the service manager.
    Nowhere,
    /// An address that others can reach needs TLS.
    NeedsTls(SocketAddr),
    /// Unsigned requests are for loopback and Unix sockets.
    UnsignedElsewhere(SocketAddr),
    /// Metrics are for loopback.
    MetricsElsewhere(SocketAddr),
    /// Somebody else serves the Unix socket.
    InUse(PathBuf),
    /// There is something else than a socket.
    NotASocket(PathBuf),
    /// The private key can be read by others; its mode is given.
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The certificate or its key cannot be used.
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused.
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        source: io::Error,
    },
}

impl ServerError {
    pub(in crate::server) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { text, why } => write!(f, "cannot listen at '{text}': {why}"),
            Self::Nowhere => {
                f.write_str("nowhere to listen: add --listen unix:PATH or ADDRESS:PORT")
            }
            Self::NeedsTls(address) => write!(
                f,
                "others can reach {address}: add --tls-cert and --tls-key, or listen on 127.0.0.1"
            ),
            Self::UnsignedElsewhere(address) => write!(
                f,
                "others can reach {address}: unsigned requests are for loopback and Unix sockets"
            ),
            Self::MetricsElsewhere(address) => {
                write!(f, "others can reach {address}: metrics are served on loopback")
            }
            Self::InUse(path) => {
                write!(f, "another server listens at '{}': stop it first", path.display())
            }
            Self::NotASocket(path) => {
                write!(f, "'{}' is something else than a socket and stays", path.display())
            }
            Self::Exposed { path, mode } => write!(
                f,
                "others can read the private key '{}' (mode {:04o}): run 'chmod 600' on it",
                path.display(),
                mode & 0o7777
            ),
            Self::Tls { path, why } => write!(f, "'{}': {why}", path.display()),
            Self::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
