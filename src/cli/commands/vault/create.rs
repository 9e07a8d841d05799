//! `mount --create`: makes whatever is missing, in the order in which each needs the one before.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::init;
use crate::cli::args::DEFAULT_ALIAS;
use crate::cli::daemon::plan::Plan;
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::unlock::{MissingKeyFile, Source};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::keystore::{Keystore, KeystoreError, Unlock};

/// Makes key file, keystore, default key and vault where they are missing; gives back the secret.
pub(in crate::cli) fn everything(
    plan: &Plan,
    source: &Source,
    output: Output,
) -> Result<Unlock, CliError> {
    // What cannot become a vault is refused before anything is made.
    if init::look(&plan.vault)? == init::Found::Vault && !exists(&plan.keystore) {
        return Err(no_keystore_for(&plan.vault, &plan.keystore));
    }
    let (keystore, unlock) = keystore(&plan.keystore, source, output)?;
    vault(plan, &KeysFrom::Keystore(Arc::new(keystore)), output)?;
    Ok(unlock)
}

/// Makes the vault where it is missing.
pub(in crate::cli) fn vault(plan: &Plan, keys: &KeysFrom, output: Output) -> Result<(), CliError> {
    if init::look(&plan.vault)? == init::Found::Nothing
        && init::make(&plan.vault, keys, DEFAULT_ALIAS)?.is_some()
    {
        output.note(&format!("made the vault {}", plan.vault.display()));
    }
    Ok(())
}

/// Opens the keystore, or makes it when there is none.
fn keystore(path: &Path, source: &Source, output: Output) -> Result<(Keystore, Unlock), CliError> {
    if exists(path) {
        let unlock = source.take(path)?;
        return Ok((Keystore::open(path, &unlock)?, unlock));
    }
    let ((keystore, is_new), unlock) =
        source.with_new(MissingKeyFile::Make, "the keystore", output, |unlock| {
            match Keystore::create(path, unlock, SystemTime::now()) {
                // Another process has made it since.
                Err(KeystoreError::Exists(_)) => Ok((Keystore::open(path, unlock)?, false)),
                made => Ok((made?, true)),
            }
        })?;
    if !is_new {
        return Ok((keystore, unlock));
    }
    output.note(&format!(
        "made the keystore {}: without it the files are lost, so back it up \
         (kmsfs keystore export FILE)",
        path.display()
    ));
    Ok((keystore, unlock))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A new keystore cannot open a vault that is there already.
fn no_keystore_for(vault: &Path, keystore: &Path) -> CliError {
    let (vault, keystore) = (vault.display(), keystore.display());
    CliError::new(
        Exit::KeystoreMissing,
        format!("{vault} is a vault, and there is no keystore {keystore}"),
    )
    .advise("nothing was made; name the keystore that has its keys with --keystore FILE")
}
