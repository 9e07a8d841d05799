//! The command's end of the socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::Uid;
use serde_json::Value;

use super::protocol::{Event, Failure, Reply, Request};
use super::runtime_dir::{self, VaultDir};
use crate::process;

/// A connection to the daemon of a mount: of this user, or of root's choice.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    daemon: u32,
    user: Uid,
}

/// Why a request came to nothing.
#[derive(Debug)]
pub enum ClientError {
    /// The connection failed or ended early.
    Io(io::Error),
    /// The daemon refused or failed.
    Failed(Failure),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the daemon does not answer: {error}"),
            Self::Failed(failure) => f.write_str(&failure.what),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Failed(_) => None,
        }
    }
}

impl Client {
    /// Connects to the daemon of a vault; `None` if there is none that may be believed: one of this
    /// user's, or, for root, of the vault's owner.
    pub fn connect(vault: VaultDir) -> Option<Self> {
        let users = vault.users().into_iter();
        let mut dirs = users
            .flat_map(|user| runtime_dir::candidates(user).into_iter().map(move |p| (p, user)));
        dirs.find_map(|(dir, user)| match Self::at(&dir, &vault.socket(), user) {
            Ok(found) => found,
            Err(error) => {
                log::warn!("no daemon is asked at {}: {error}", dir.display());
                None
            }
        })
    }

    /// Connects to the socket `name` in a directory that must be `user`'s alone.
    ///
    /// # Errors
    /// Permission denied if directory, socket or peer are somebody else's.
    fn at(dir: &Path, name: &str, user: Uid) -> io::Result<Option<Self>> {
        let handle = |at: &dyn Fn() -> Result<OwnedFd, Errno>| match at() {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        };
        let Some(held) = handle(&|| openat(CWD, dir, HANDLE, Mode::empty()))? else {
            return Ok(None);
        };
        let stat = fstat(&held)?;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        runtime_dir::check(dir, is_dir, (stat.st_uid, stat.st_mode), user)?;
        let Some(socket) = handle(&|| openat(&held, name, HANDLE, Mode::empty()))? else {
            return Ok(None);
        };
        let stat = fstat(&socket)?;
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        if !is_socket || stat.st_uid != user.as_raw() {
            return Err(denied("what is there is not a socket of this user"));
        }
        // By the handle: the name may mean something else by now.
        let path = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
        let stream = match connect(&path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            other => other?,
        };
        if socket_peercred(&stream)?.uid != user {
            return Err(denied("a process of another user listens there"));
        }
        Self::to(stream).map(Some)
    }

    /// Takes over a connection.
    ///
    /// # Errors
    /// Those of asking who is at the other end.
    pub(super) fn to(stream: UnixStream) -> io::Result<Self> {
        let peer = socket_peercred(&stream)?;
        let daemon = peer.pid.as_raw_nonzero().get().unsigned_abs();
        Ok(Self { stream, daemon, user: peer.uid })
    }

    /// Some answers wait for no disk and no KMS. For the others a daemon of this user's has all the
    /// time that it needs; one of another user's shows that it is at work.
    fn patience(&self, request: &Request) -> Patience {
        if matches!(request, Request::Status | Request::Metrics) {
            Patience::Until(Instant::now() + PATIENCE)
        } else if self.is_own() {
            Patience::Endless
        } else {
            Patience::Silence(SILENCE)
        }
    }

    /// True if the daemon is of this process's user.
    pub fn is_own(&self) -> bool {
        process::is_own_user(self.user.as_raw())
    }

    /// The process at the other end.
    pub fn daemon(&self) -> u32 {
        self.daemon
    }

    /// Sends a request and waits for its result; events are passed on as they come, until one
    /// gives `false`: the daemon stops then.
    ///
    /// # Errors
    /// `Interrupted` if an event gave `false`;
    /// `TimedOut` if another user's daemon takes too long, and any for what waits for no disk.
    pub fn call(
        self,
        request: &Request,
        mut event: impl FnMut(Event) -> bool,
    ) -> Result<Value, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Io(e.into()))?;
        line.push(b'\n');
        let patience = self.patience(request);
        self.stream.set_write_timeout(Some(PATIENCE)).map_err(ClientError::Io)?;
        (&self.stream).write_all(&line).map_err(ClientError::Io)?;
        let mut confirm = self.stream.try_clone().map_err(ClientError::Io)?;
        let mut answer = BufReader::new(Answer { stream: self.stream, patience });
        loop {
            let line = read_line(&mut answer).map_err(ClientError::Io)?;
            match serde_json::from_slice(&line).map_err(|e| ClientError::Io(e.into()))? {
                Reply::Event(news) => {
                    let waits = wants_confirmation(request, &news);
                    if !event(news) {
                        return Err(ClientError::Io(io::ErrorKind::Interrupted.into()));
                    }
                    if waits {
                        confirm.write_all(b"\n").map_err(ClientError::Io)?;
                    }
                }
                Reply::Done(value) => return Ok(value),
                Reply::Failed(failure) => return Err(ClientError::Failed(failure)),
            }
        }
    }
}

fn wants_confirmation(request: &Request, news: &Event) -> bool {
    matches!((request, news), (Request::Rewrap { confirm: true, .. }, Event::Changed(_)))
}

/// How long somebody waits.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// As long as it takes.
    Endless,
    /// Until then, whatever comes before.
    Until(Instant),
    /// So long for each sign of life.
    Silence(Duration),
}

/// What the daemon sends.
struct Answer {
    stream: UnixStream,
    patience: Patience,
}

impl Read for Answer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wait = match self.patience {
            Patience::Endless => None,
            Patience::Silence(time) => Some(time),
            Patience::Until(end) => Some(end.saturating_duration_since(Instant::now())),
        };
        if wait == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(wait)?;
        match self.stream.read(buf) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            read => read,
        }
    }
}

/// Connects to a socket whose owner may never accept anybody, in bounded time.
fn connect(path: &str) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let (address, end) = (SocketAddrUnix::new(path)?, Instant::now() + PATIENCE);
    loop {
        match rustix::net::connect(&socket, &address) {
            // Its queue is full.
            Err(Errno::AGAIN) if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Errno::INTR) => {}
            other => break other?,
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// One line. Errors: of unexpected end, or of one that never comes.
fn read_line(answer: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    answer.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    match line.last() {
        Some(b'\n') => Ok(line),
        Some(_) if line.len() as u64 == LONGEST_LINE => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "its answer is too long"))
        }
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn denied(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The longest answer is a list of files that could not be re-wrapped.
const LONGEST_LINE: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(10);
/// A re-wrap tells of each file.
const SILENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use rustix::process::geteuid;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("kmsfs-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
        dir
    }

    fn kind(found: io::Result<Option<Client>>) -> io::ErrorKind {
        found.unwrap_err().kind()
    }

    #[test]
    fn only_a_socket_in_a_directory_of_the_user_alone_is_asked() {
        let (dir, user) = (scratch("asked"), geteuid());
        assert!(Client::at(&dir, "none", user).unwrap().is_none());
        assert!(Client::at(&dir.join("none"), "none", user).unwrap().is_none());
        let _listener = UnixListener::bind(dir.join("s")).unwrap();
        let client = Client::at(&dir, "s", user).unwrap().unwrap();
        assert_eq!(client.daemon(), std::process::id());
        // A link to a socket elsewhere, and what would hang or be a file.
        symlink(dir.join("s"), dir.join("link")).unwrap();
        std::fs::write(dir.join("file"), "").unwrap();
        let mkfifo = std::process::Command::new("mkfifo").arg(dir.join("fifo")).status();
        assert!(mkfifo.unwrap().success());
        for name in ["link", "file", "fifo"] {
            assert_eq!(kind(Client::at(&dir, name, user)), io::ErrorKind::PermissionDenied);
        }
        symlink(&dir, dir.join("way")).unwrap();
        assert_eq!(kind(Client::at(&dir.join("way"), "s", user)), io::ErrorKind::PermissionDenied);
        // Somebody else's directory, and one that others may write.
        let other = Uid::from_raw(user.as_raw() + 1);
        assert_eq!(kind(Client::at(&dir, "s", other)), io::ErrorKind::PermissionDenied);
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(kind(Client::at(&dir, "s", user)), io::ErrorKind::PermissionDenied);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn an_answer_that_never_ends_is_given_up() {
        let mut endless = BufReader::new(io::repeat(b'x'));
        assert_eq!(read_line(&mut endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_line(&mut &b"half"[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_line(&mut &b"whole\nnext"[..]).unwrap(), b"whole\n");
    }
}
