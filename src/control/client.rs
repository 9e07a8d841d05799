//! The command's end of the socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::protocol::{Event, Failure, Reply, Request};

/// A connection to the daemon of a mount.
#[derive(Debug)]
pub struct Client(UnixStream);

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
    /// Connects to the socket of a daemon.
    pub fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self)
    }

    /// Sends a request and waits for its result; events are passed on as they come.
    pub fn call(
        mut self,
        request: &Request,
        mut event: impl FnMut(Event),
    ) -> Result<Value, ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Io(e.into()))?;
        line.push(b'\n');
        self.0.write_all(&line).map_err(ClientError::Io)?;
        for line in BufReader::new(self.0).lines() {
            let line = line.map_err(ClientError::Io)?;
            match serde_json::from_str(&line).map_err(|e| ClientError::Io(e.into()))? {
                Reply::Event(news) => event(news),
                Reply::Done(value) => return Ok(value),
                Reply::Failed(failure) => return Err(ClientError::Failed(failure)),
            }
        }
        Err(ClientError::Io(io::ErrorKind::UnexpectedEof.into()))
    }
}
