//! Opens a vault of which the keystore may know more than the vault itself.

use std::path::Path;

use super::failure;
use super::keys_from::KeysFrom;
use crate::cli::report::exit::{CliError, Exit};
use crate::id::VolumeId;
use crate::volume::{Options, Volume};

/// Opens the vault for a command that works on it by itself.
///
/// Errors: `Refused` if another vault is expected there; those of opening it.
pub(in crate::cli) fn open(
    keys: &KeysFrom,
    vault: &Path,
    options: Options,
) -> Result<Volume, CliError> {
    must_be_expected(keys, vault, &options)?;
    let restored = options.restored;
    let volume = Volume::open_vault(vault, keys.service(), options)
        .map_err(|error| keys.failed(vault, &error))?;
    opened_as_expected(keys, vault, restored, volume)
}

/// Before a vault is opened, which may write to it.
///
/// Errors: `Refused`.
pub(in crate::cli) fn must_be_expected(
    keys: &KeysFrom,
    vault: &Path,
    options: &Options,
) -> Result<(), CliError> {
    let found = Volume::peek(vault).map_err(|error| failure::volume(vault, &error))?;
    refuse_exchanged(keys, vault, options.restored, found.volume)
}

/// The same for what was opened: the path may lead to another vault by now.
///
/// Errors: `Refused`.
pub(in crate::cli) fn opened_as_expected(
    keys: &KeysFrom,
    vault: &Path,
    restored: bool,
    volume: Volume,
) -> Result<Volume, CliError> {
    let expected = refuse_exchanged(keys, vault, restored, volume.id());
    if expected.is_err() {
        // Nothing was changed: the next session must not take this one for a crash.
        let _ = volume.end();
    }
    expected.map(|()| volume)
}

/// Whoever exchanges two vaults would make what is written to one arrive in the other. A vault that was
/// moved to a path of its own, one that the keystore has not seen before, and one that is restored to
/// where it was are taken as they are. Only if another volume is expected at this path, and this one
/// elsewhere, must a person say that it is meant.
fn refuse_exchanged(
    keys: &KeysFrom,
    vault: &Path,
    restored: bool,
    found: VolumeId,
) -> Result<(), CliError> {
    let Some(keystore) = keys.keystore().filter(|_| !restored) else { return Ok(()) };
    let place = vault.display();
    match keystore.expected_volume(found, vault)? {
        None => Ok(()),
        Some(expected) => Err(CliError::new(
            Exit::Refused,
            format!(
                "{place} holds volume {found}, which was last at another place; volume {expected} is \
                 expected here"
            ),
        )
        .advise("if the vault was put here on purpose, mount it once with --restored")),
    }
}
