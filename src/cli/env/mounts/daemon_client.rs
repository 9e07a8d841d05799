//! Finding the daemon of a vault, by the vault or by its mountpoint.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::mountinfo::{self, Mounted};
use crate::cli::env::paths;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::printable::{lines, printable};
use crate::control::{Client, ClientError, Event, Failure, Request, VaultDir};
use crate::volume;

/// A vault, and its daemon when it has one.
#[derive(Debug)]
pub(in crate::cli) struct Target {
    /// The vault.
    pub vault: PathBuf,
    /// What its path led to when it was looked at.
    dir: Option<VaultDir>,
}

impl Target {
    /// Resolves what the user named: a mountpoint, anything else is a vault.
    pub(in crate::cli) fn find(named: &Path) -> Result<Self, CliError> {
        let path = paths::real(named)?;
        let mount = mountinfo::at(&path)?.filter(Mounted::is_believable);
        Ok(mount.map_or_else(|| Self { dir: dir_of(&path), vault: path }, |mount| Self::of(&mount)))
    }

    /// The vault of a mount.
    pub(in crate::cli) fn of(mount: &Mounted) -> Self {
        Self { vault: mount.vault.clone(), dir: mount.source() }
    }

    /// The directory of the vault, if it may be believed.
    pub(in crate::cli) fn dir(&self) -> Option<VaultDir> {
        self.dir
    }

    /// The daemon that has the vault mounted for writing, if one may be believed.
    pub(in crate::cli) fn daemon(&self) -> Option<Client> {
        Client::connect(self.dir?)
    }

    /// Asks the daemon; `None` when there is none.
    pub(in crate::cli) fn call(
        &self,
        request: &Request,
        event: impl FnMut(Event) -> bool,
    ) -> Option<Result<Value, CliError>> {
        let client = self.daemon()?;
        Some(client.call(request, event).map_err(|error| self.explain(error)))
    }

    /// Asks the daemon if it is this user's own.
    pub(in crate::cli) fn call_own(&self, request: &Request) -> Option<Result<Value, CliError>> {
        let client = self.daemon().filter(Client::is_own)?;
        Some(client.call(request, |_| true).map_err(|error| self.explain(error)))
    }

    fn explain(&self, error: ClientError) -> CliError {
        match error {
            ClientError::Failed(failure) => failure.into(),
            ClientError::Io(error) => {
                let what = format!("the daemon of {} does not answer", self.vault.display());
                CliError::io(what, &error)
            }
        }
    }
}

fn dir_of(vault: &Path) -> Option<VaultDir> {
    VaultDir::of(volume::open_root(vault).ok()?).ok()
}

/// True when nobody holds the vault in any way, or it is out of sight.
pub(in crate::cli) fn is_free(vault: &Path) -> bool {
    volume::open_root(vault).map_or(true, volume::is_free)
}

impl From<Failure> for CliError {
    fn from(failure: Failure) -> Self {
        let exit = Exit::from_code(failure.exit);
        let advice = failure.advice.map(|advice| lines(&advice).into_owned());
        Self { exit, what: printable(&failure.what).into_owned(), advice }
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        error.to_failure()
    }
}

impl CliError {
    /// The same as it crosses the socket.
    pub(in crate::cli) fn to_failure(&self) -> Failure {
        Failure { exit: self.exit.code(), what: self.what.clone(), advice: self.advice.clone() }
    }
}
