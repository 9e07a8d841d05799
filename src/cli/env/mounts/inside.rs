//! What opens a keystore, and the keystore, must not lie where only that keystore leads.

use std::io::ErrorKind::{NotADirectory, NotFound};
use std::path::Path;

use super::daemon_client::Target;
use super::mountinfo::{self, Mounted};
use crate::cli::env::paths;
use crate::cli::env::unlock::Source;
use crate::cli::report::exit::{CliError, Exit};
use crate::control::{Client, Request};
use crate::envelope::META_DIR;
use crate::keystore::{Keystore, KeystoreError};
use crate::volume::Volume;

/// Refuses a file that is about to be made in a vault, or in a mount that this keystore may open: when
/// that is not mounted, nobody can read it, and nothing else may open the keystore.
///
/// Errors: `Refused`.
pub(in crate::cli) fn refuse(keystore: &Keystore, file: &Path, what: &str) -> Result<(), CliError> {
    refuse_vaults(file, what)?;
    let place = paths::real(file)?;
    match mountinfo::holding(&place)? {
        // Another vault, whose keys are elsewhere, is as good a place as any.
        Some(mount) if !has_keys_elsewhere(keystore, &mount)? => {
            Err(in_mount(&place, what, &mount))
        }
        _ => Ok(()),
    }
}

/// The same of a keystore that is about to be made, and of its key file, in a vault: there they go
/// wherever the ciphertext goes.
///
/// Errors: `Refused`.
pub(in crate::cli) fn refuse_new(keystore: &Path, source: &Source) -> Result<(), CliError> {
    refuse_vaults(keystore, "the keystore")?;
    match source {
        Source::KeyFile(path) => refuse_vaults(path, "the key file"),
        _ => Ok(()),
    }
}

/// The same of a copy of a keystore that was there already: nobody knows before what it opens.
///
/// Errors: `Refused`.
pub(in crate::cli) fn refuse_restored(keystore: &Path, source: &Source) -> Result<(), CliError> {
    refuse_new(keystore, source)?;
    let mut made = vec![(keystore, "the keystore")];
    if let Source::KeyFile(path) = source {
        made.push((path, "the key file"));
    }
    for (file, what) in made {
        let place = paths::real(file)?;
        if let Some(mount) = mountinfo::holding(&place)? {
            return Err(in_mount(&place, what, &mount));
        }
    }
    Ok(())
}

/// Refuses a place in the directory of any vault.
///
/// Errors: `Refused`.
pub(in crate::cli) fn refuse_vaults(file: &Path, what: &str) -> Result<(), CliError> {
    let place = paths::real(file)?;
    let Some(vault) = place.ancestors().find(|dir| may_be_vault(dir)) else { return Ok(()) };
    let what = format!("{what} {} would lie in the vault {}", place.display(), vault.display());
    Err(CliError::new(Exit::Refused, what)
        .advise("name a place outside: in there it goes wherever the ciphertext goes"))
}

fn in_mount(place: &Path, what: &str, mount: &Mounted) -> CliError {
    let (place, mount) = (place.display(), mount.mountpoint.display());
    let what =
        format!("{what} {place} would lie in {mount}, which this keystore opens, or may open");
    CliError::new(Exit::Refused, what)
        .advise("write it elsewhere: it is needed to open what is inside")
}

/// True if a vault is in this directory, whole or damaged, or nobody may look.
fn may_be_vault(dir: &Path) -> bool {
    ["volume", "volume.bak"].iter().any(|name| {
        let found = dir.join(META_DIR).join(name).symlink_metadata();
        found.map_or_else(|error| !matches!(error.kind(), NotFound | NotADirectory), |_| true)
    })
}

/// True if this user's own daemon confirms that the mount shows a volume whose key this keystore does not
/// have. The path alone proves nothing: the vault may have been moved or replaced since, and a volume
/// served from this keystore is not among its known volumes.
fn has_keys_elsewhere(keystore: &Keystore, mount: &Mounted) -> Result<bool, CliError> {
    let daemon = Target::of(mount).daemon().filter(Client::is_own);
    let status = daemon.map(|daemon| daemon.call(&Request::Status, |_| true));
    let Some(Ok(status)) = status else { return Ok(false) };
    let says = |name: &str| status.get(name).and_then(|value| value.as_str());
    let Ok(found) = Volume::peek(&mount.vault) else { return Ok(false) };
    if says("device") != Some(&*mount.device_text())
        || says("volume") != Some(&*found.volume.to_string())
        || keystore.known_volumes()?.iter().any(|known| known.id == found.volume)
    {
        return Ok(false);
    }
    match keystore.key_state(found.recipient.key) {
        Err(KeystoreError::KeyNotFound(_)) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
