//! `kmsfs init`: making a vault.

use std::io;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::args::{Global, InitArgs};
use super::exit::{CliError, Exit};
use super::mountinfo::text;
use super::output::Output;
use super::{DEFAULT_ALIAS, failure, key, keystore, paths};
use crate::id::{KeyId, VolumeId};
use crate::keystore::{KeyState, Keystore, KeystoreError};
use crate::volume::{Volume, VolumeError};
use std::time::SystemTime;

/// What stands at the place of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A vault.
    Vault,
    /// Nothing, or an empty directory.
    Nothing,
}

/// Makes a vault.
pub(super) fn run(args: &InitArgs, global: &Global, output: Output) -> Result<Exit, CliError> {
    let vault = paths::real(&args.vault)?;
    if look(&vault)? == Found::Vault {
        return Err(CliError::new(
            Exit::NotAVault,
            format!("{} is a vault already", vault.display()),
        )
        .advise("nothing was changed; make another one elsewhere"));
    }
    let keystore = Arc::new(keystore::open(global)?);
    let key = if args.key == DEFAULT_ALIAS {
        keystore.ensure_default_key(SystemTime::now())?
    } else {
        key::id(&keystore, &args.key)?
    };
    let volume = make(&vault, &keystore, key)?;
    let value = json!({
        "vault": text(&vault),
        "volume": volume.to_string(),
        "key": key.to_string(),
    });
    output.result(&value, || {
        format!(
            "made the vault {} under key {key}\nmount it with: kmsfs mount {0} MOUNTPOINT",
            vault.display()
        )
    });
    Ok(Exit::Ok)
}

/// Looks at the place of a vault without changing anything.
///
/// Errors: `NotAVault` for a directory with files of somebody else; `VaultFormat`.
pub(super) fn look(vault: &Path) -> Result<Found, CliError> {
    match Volume::peek(vault) {
        Ok(_) => return Ok(Found::Vault),
        Err(VolumeError::NotAVolume(_)) => {}
        Err(error) => return Err(failure::volume(vault, &error)),
    }
    match std::fs::read_dir(vault) {
        // What an interrupted attempt left is ours, and is completed.
        Ok(entries) => {
            let foreign = entries.flatten().any(|entry| {
                let name = entry.file_name();
                !name.to_string_lossy().starts_with(".kmsfs")
            });
            if foreign { Err(not_empty(vault)) } else { Ok(Found::Nothing) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => {
            let mut failed = CliError::io(vault.display(), &error);
            failed.exit = Exit::NotAVault;
            Err(failed)
        }
    }
}

/// Makes a vault in a directory that is missing or empty, and lets the keystore know of it.
pub(super) fn make(
    vault: &Path,
    keystore: &Arc<Keystore>,
    key: KeyId,
) -> Result<VolumeId, CliError> {
    match keystore.key_state(key)? {
        KeyState::Enabled => {}
        KeyState::Disabled => return Err(KeystoreError::Disabled(key).into()),
        state => return Err(KeystoreError::InvalidState { key, state }.into()),
    }
    if let Some(parent) = vault.parent() {
        std::fs::create_dir_all(parent).map_err(|error| CliError::io(parent.display(), &error))?;
    }
    let volume = Volume::init_vault(vault, keystore.clone(), key).map_err(|error| match error {
        VolumeError::NotEmpty => not_empty(vault),
        error => failure::volume(vault, &error),
    })?;
    keystore.register_volume(volume, vault)?;
    Ok(volume)
}

fn not_empty(vault: &Path) -> CliError {
    CliError::new(
        Exit::NotAVault,
        format!("{} is not a vault, and not empty either", vault.display()),
    )
    .advise("a vault is made in a directory that is missing or empty")
}
