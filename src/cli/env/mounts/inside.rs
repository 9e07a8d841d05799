//! What opens a keystore must not lie inside of a vault that this keystore opens.

use std::path::Path;

use super::mountinfo;
use crate::cli::env::paths;
use crate::cli::report::exit::{CliError, Exit};
use crate::keystore::Keystore;
use crate::volume::Volume;

/// Refuses a file that is about to be made in the mount of a vault of this keystore: when that is not
/// mounted, nobody can read it, and nothing else may open the keystore.
///
/// Errors: `Refused`.
pub(in crate::cli) fn refuse(keystore: &Keystore, file: &Path, what: &str) -> Result<(), CliError> {
    let Some(mount) = mountinfo::holding(&paths::real(file)?)? else { return Ok(()) };
    // Another vault, whose keys are elsewhere, is as good a place as any.
    let Ok(found) = Volume::peek(&mount.vault) else { return Ok(()) };
    if !keystore.known_volumes()?.iter().any(|known| known.id == found.volume) {
        return Ok(());
    }
    let (file, mount) = (file.display(), mount.mountpoint.display());
    Err(CliError::new(
        Exit::Refused,
        format!("{what} {file} would lie in {mount}, which is encrypted with this keystore"),
    )
    .advise("write it elsewhere: it is needed to open what is inside"))
}
