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

    /// True if this user's daemon of the vault has made the mount, or one that this is bound from.
    fn has_mounted(&self, mount: &Mounted) -> bool {
        let Some(Ok(status)) = self.call_own(&Request::Status) else { return false };
        let mountpoint = status.get("mountpoint").and_then(Value::as_str);
        mountinfo::all().is_ok_and(|all| {
            let mut same = all.iter().filter(|other| other.device == mount.device);
            same.any(|other| mountpoint == Some(&mountinfo::text(&other.mountpoint)))
        })
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

/// Why a mount is of another directory than the one that is at its path now: that was moved, or
/// something lies over it. What is found at the path says nothing about what is mounted then.
pub(in crate::cli) fn elsewhere(mount: &Mounted) -> Option<String> {
    let target = Target::of(mount);
    let own = mount.user == rustix::process::geteuid().as_raw();
    let serves = match target.dir {
        None => false,
        // One that only reads has no socket, but it holds the vault.
        Some(_) if mount.read_only => !is_free(&mount.vault),
        // Others may hold what is at the path now; its daemon says where it has mounted it.
        Some(_) if own => target.has_mounted(mount),
        Some(_) => target.daemon().is_some() || !is_free(&mount.vault),
    };
    // One that has ended meanwhile holds nothing any more.
    let is_there =
        || mountinfo::all().is_ok_and(|all| all.iter().any(|other| other.id == mount.id));
    (!serves && is_there()).then(|| {
        format!(
            "what is mounted at {} is a directory that was at this path before",
            mount.mountpoint.display()
        )
    })
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
