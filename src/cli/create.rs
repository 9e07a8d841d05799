//! `mount --create`: makes whatever is missing, in the order in which each needs the one before.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::exit::CliError;
use super::keys_from::KeysFrom;
use super::mount::Plan;
use super::output::Output;
use super::unlock::{MissingKeyFile, Source};
use super::{DEFAULT_ALIAS, init};
use crate::keystore::{Keystore, Unlock};

/// Makes key file, keystore, default key and vault where they are missing; gives back the secret.
pub(super) fn everything(plan: &Plan, source: &Source, output: Output) -> Result<Unlock, CliError> {
    // What cannot become a vault is refused before anything is made.
    init::look(&plan.vault)?;
    let (keystore, unlock) = keystore(&plan.keystore, source, output)?;
    vault(plan, &KeysFrom::Keystore(Arc::new(keystore)), output)?;
    Ok(unlock)
}

/// Makes the vault where it is missing.
pub(super) fn vault(plan: &Plan, keys: &KeysFrom, output: Output) -> Result<(), CliError> {
    if init::look(&plan.vault)? == init::Found::Nothing {
        init::make(&plan.vault, keys, DEFAULT_ALIAS)?;
        output.note(&format!("made the vault {}", plan.vault.display()));
    }
    Ok(())
}

/// Opens the keystore, or makes it when there is none.
fn keystore(path: &Path, source: &Source, output: Output) -> Result<(Keystore, Unlock), CliError> {
    if path.symlink_metadata().is_ok() {
        let unlock = source.take(path)?;
        return Ok((Keystore::open(path, &unlock)?, unlock));
    }
    let unlock = source.take_new(MissingKeyFile::Make, output)?;
    let keystore = Keystore::create(path, &unlock, SystemTime::now())?;
    output.note(&format!(
        "made the keystore {}: without it the files are lost, so back it up \
         (kmsfs keystore export FILE)",
        path.display()
    ));
    Ok((keystore, unlock))
}
