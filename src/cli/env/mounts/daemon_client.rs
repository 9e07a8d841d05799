//! Finding the daemon of a vault, by the vault or by its mountpoint.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::life::Life;
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
    /// The mount that is meant.
    mount: Option<Mounted>,
}

impl Target {
    /// Resolves what the user named, for something that is done to it.
    ///
    /// Errors: `Refused` if it is the mountpoint of a vault whose path leads to another one by now.
    pub(in crate::cli) fn find(named: &Path) -> Result<Self, CliError> {
        let target = Self::named(named)?;
        match &target.mount {
            Some(mount) if !target.is_here() => Err(CliError::new(
                Exit::Refused,
                format!(
                    "what is mounted at {} is a directory that was at {} before",
                    mount.mountpoint.display(),
                    mount.vault.display()
                ),
            )
            .advise("move it back, or unmount it and name the vault where it is now")),
            _ => Ok(target),
        }
    }

    /// Resolves what the user named: a mountpoint, or else a vault.
    pub(in crate::cli) fn named(named: &Path) -> Result<Self, CliError> {
        let path = paths::real(named)?;
        let mount = mountinfo::at(&path)?.filter(Mounted::is_believable);
        Ok(match mount {
            Some(mount) => Self::of(&mount),
            None => Self { dir: dir_of(&path), vault: path, mount: None },
        })
    }

    /// The vault of a mount.
    pub(in crate::cli) fn of(mount: &Mounted) -> Self {
        Self { vault: mount.vault.clone(), dir: mount.source(), mount: Some(mount.clone()) }
    }

    /// The mount that was named.
    pub(in crate::cli) fn mount(&self) -> Option<&Mounted> {
        self.mount.as_ref()
    }

    /// False if the vault of a mount is not at its path any more: the mount answers, and no daemon says
    /// that it has mounted what is there. A mount that only reads has no daemon to say so.
    pub(in crate::cli) fn is_here(&self) -> bool {
        let Some(mount) = self.mount.as_ref().filter(|mount| !mount.read_only) else { return true };
        self.daemon().is_some() || Life::of(mount) != Life::Alive
    }

    /// The directory of the vault, if it may be believed.
    pub(in crate::cli) fn dir(&self) -> Option<VaultDir> {
        self.dir
    }

    /// The daemon that has the vault mounted for writing, if one may be believed.
    pub(in crate::cli) fn daemon(&self) -> Option<Client> {
        let dir = self.dir?;
        let client = Client::connect(dir)?;
        match &self.mount {
            // What others say of themselves is no better than that they are asked.
            Some(mount) if client.is_own() && !has_mounted(Client::connect(dir)?, mount) => None,
            _ => Some(client),
        }
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

/// False if a daemon says that this mount is not its own: the vault that it has mounted is at the
/// path at which the mount's was.
fn has_mounted(daemon: Client, mount: &Mounted) -> bool {
    // One that does not answer fails the next request as well.
    let Ok(status) = daemon.call(&Request::Status, |_| true) else { return true };
    let says = |name: &str| status.get(name).and_then(Value::as_str);
    match says("device") {
        Some(device) => device == mount.device_text(),
        // Not mounted yet, or an older build.
        None => says("mountpoint") == Some(&mountinfo::text(&mount.mountpoint)),
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
