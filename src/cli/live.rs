//! Finding the daemon of a vault, by the vault or by its mountpoint.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::exit::{CliError, Exit};
use super::{mountinfo, paths};
use crate::control::{Client, ClientError, Event, Failure, Request};
use crate::volume::{self, Holder};

/// A vault, and its daemon when it has one.
#[derive(Debug)]
pub(super) struct Target {
    /// The vault.
    pub vault: PathBuf,
    /// The socket of the daemon that has it mounted.
    pub socket: Option<PathBuf>,
}

impl Target {
    /// Resolves what the user named: a mountpoint, anything else is a vault.
    pub(super) fn find(named: &Path) -> Result<Self, CliError> {
        let path = paths::real(named)?;
        let vault = mountinfo::at(&path)?.map_or(path, |mount| mount.vault);
        let socket = holder(&vault).and_then(|holder| holder.socket).map(PathBuf::from);
        Ok(Self { vault, socket })
    }

    /// Asks the daemon; `None` when there is none.
    pub(super) fn call(
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

/// Who holds the vault for writing, if anybody does.
pub(super) fn holder(vault: &Path) -> Option<Holder> {
    volume::holder(volume::open_root(vault).ok()?).ok().flatten()
}

/// True when nobody holds the vault in any way, or it is out of sight.
pub(super) fn is_free(vault: &Path) -> bool {
    volume::open_root(vault).map_or(true, volume::is_free)
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
