//! Finding the daemon of a vault, by the vault or by its mountpoint.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::Deserialize;
use serde_json::Value;

use super::exit::{CliError, Exit};
use super::{mountinfo, paths};
use crate::control::{Client, ClientError, Event, Failure, Request};

/// What the holder of a vault's lock wrote into the lock file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// Where it mounted the vault.
    pub mountpoint: Option<PathBuf>,
    /// Its control socket.
    pub socket: Option<PathBuf>,
}

/// A vault, and its daemon when it has one.
#[derive(Debug)]
pub struct Target {
    /// The vault.
    pub vault: PathBuf,
    /// The socket of the daemon that has it mounted.
    pub socket: Option<PathBuf>,
}

impl Target {
    /// Resolves what the user named: a mountpoint, anything else is a vault.
    pub fn find(named: &Path) -> Result<Self, CliError> {
        let path = paths::real(named)?;
        let vault = mountinfo::at(&path)?.map_or(path, |mount| mount.vault);
        let socket =
            if is_locked(&vault) { holder(&vault).and_then(|holder| holder.socket) } else { None };
        Ok(Self { vault, socket })
    }

    /// Asks the daemon; `None` when there is none.
    pub fn call(
        &self,
        request: &Request,
        event: impl FnMut(Event),
    ) -> Option<Result<Value, CliError>> {
        let client = Client::connect(self.socket.as_deref()?).ok()?;
        Some(client.call(request, event).map_err(|error| self.explain(error)))
    }

    fn explain(&self, error: ClientError) -> CliError {
        match error {
            ClientError::Failed(failure) => failure.into(),
            ClientError::Io(error) => {
                CliError::io(format!("the daemon of {}", self.vault.display()), &error)
            }
        }
    }
}

/// True while some process holds the vault.
pub fn is_locked(vault: &Path) -> bool {
    let Ok(file) = File::open(vault.join(LOCK_FILE)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// What the last holder of the vault's lock wrote.
pub fn holder(vault: &Path) -> Option<Holder> {
    let text = std::fs::read(vault.join(LOCK_FILE)).ok()?;
    serde_json::from_slice(&text).ok()
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let exit = Exit::from_code(failure.exit);
        Self { exit, what: failure.what, advice: failure.advice }
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self { exit: error.exit.code(), what: error.what, advice: error.advice }
    }
}

const LOCK_FILE: &str = ".kmsfs/lock";
