//! The keystore that a command line names, and the keys in it.

use super::paths;
use super::unlock::Source;
use crate::cli::args::Global;
use crate::cli::report::exit::CliError;
use crate::id::KeyId;
use crate::keystore::Keystore;

/// Opens the keystore of this command.
pub(in crate::cli) fn open(global: &Global) -> Result<Keystore, CliError> {
    let path = paths::keystore(global)?;
    let unlock = Source::choose(global)?.take(&path)?;
    Ok(Keystore::open(&path, &unlock)?)
}

/// Opens the keystore even if its rows are not those that were written.
pub(in crate::cli) fn open_damaged(global: &Global) -> Result<Keystore, CliError> {
    let path = paths::keystore(global)?;
    let unlock = Source::choose(global)?.take(&path)?;
    Ok(Keystore::open_damaged(&path, &unlock)?)
}

/// The key that a user named.
pub(in crate::cli) fn key_id(keystore: &Keystore, named: &str) -> Result<KeyId, CliError> {
    Ok(keystore.resolve(&named.parse()?)?)
}
