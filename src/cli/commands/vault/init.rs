//! `kmsfs init`: making a vault.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::json;

use crate::cli::args::kms_source::KmsArgs;
use crate::cli::args::{DEFAULT_ALIAS, Global, InitArgs};
use crate::cli::env::keys_from::KeysFrom;
use crate::cli::env::keystore::key_id;
use crate::cli::env::mounts::mountinfo::text;
use crate::cli::env::{failure, paths};
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;
use crate::envelope::{DIR_FILE, META_DIR};
use crate::id::{KeyId, VolumeId};
use crate::keystore::{KeyState, Keystore, KeystoreError};
use crate::volume::{Volume, VolumeError};

/// What stands at the place of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Found {
    /// A vault.
    Vault,
    /// Nothing, or an empty directory.
    Nothing,
}

/// Makes a vault.
pub(in crate::cli) fn run(
    args: &InitArgs,
    global: &Global,
    output: Output,
) -> Result<Exit, CliError> {
    let vault = paths::real(&args.vault)?;
    if look(&vault)? == Found::Vault {
        return Err(is_a_vault(&vault));
    }
    let keys = KeysFrom::open(&args.kms, global)?;
    let Some((volume, key)) = make(&vault, &keys, &args.key)? else {
        return Err(is_a_vault(&vault));
    };
    let value = json!({
        "vault": text(&vault),
        "volume": volume.to_string(),
        "key": key.to_string(),
    });
    output.result(&value, || {
        format!(
            "made the vault {0} under key {key}\nmount it with: kmsfs mount {1}{0} MOUNTPOINT",
            vault.display(),
            options(&args.kms),
        )
    });
    Ok(Exit::Ok)
}

/// Looks at the place of a vault without changing anything.
///
/// Errors: `NotAVault` for a directory with files of somebody else; `VaultFormat`.
pub(in crate::cli) fn look(vault: &Path) -> Result<Found, CliError> {
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

/// Makes a vault in a directory that is missing or empty, and lets a keystore on this machine know
/// of it. Returns the key that was meant, too; only there is it made when it is the default one.
/// `None` if another process has made the vault since somebody looked.
pub(in crate::cli) fn make(
    vault: &Path,
    keys: &KeysFrom,
    key: &str,
) -> Result<Option<(VolumeId, KeyId)>, CliError> {
    let failed = |error| match error {
        VolumeError::NotEmpty => not_empty(vault),
        error => failure::volume(vault, &error),
    };
    let key = match keys.keystore() {
        Some(keystore) => usable_key(keystore, key)?,
        None => keys.service().find_key(key).map_err(failed)?,
    };
    if let Some(parent) = vault.parent() {
        std::fs::create_dir_all(parent).map_err(|error| CliError::io(parent.display(), &error))?;
    }
    let Some(claim) = Claim::take(vault)? else { return Ok(None) };
    let made = Volume::init_vault(vault, keys.service(), key);
    let volume = made
        .inspect_err(|_| {
            if claim.is_new {
                remove_rest(vault)
            }
        })
        .map_err(failed)?;
    drop(claim);
    if let Some(keystore) = keys.keystore() {
        keystore.register_volume(volume, vault).map_err(|error| {
            let what = format!("made the vault, but the keystore does not know of it: {error}");
            CliError { what, ..error.into() }.advise("mounting it lets the keystore know")
        })?;
    }
    Ok(Some((volume, key)))
}

/// The right to make a vault in a directory: the lock that a mount takes. Of two who make one at the
/// same time, one would take away, or write over, what the other makes.
struct Claim {
    _dir: File,
    /// The directory was missing.
    is_new: bool,
}

impl Claim {
    /// Makes the directory if it is missing. `None` if it is a vault by the time that it is ours.
    fn take(vault: &Path) -> Result<Option<Self>, CliError> {
        let failed = |error| CliError::io(vault.display(), &error);
        let end = Instant::now() + PATIENCE;
        let mut is_new = false;
        loop {
            is_new |= DirBuilder::new().mode(0o700).create(vault).is_ok();
            let dir = File::open(vault).map_err(failed)?;
            let locked = flock(&dir, FlockOperation::NonBlockingLockExclusive);
            if look(vault)? == Found::Vault {
                return Ok(None);
            }
            match locked {
                // One who failed may have removed the directory since it was opened.
                Ok(()) if is_at(&dir, vault) => return Ok(Some(Self { _dir: dir, is_new })),
                Ok(()) | Err(Errno::WOULDBLOCK) if Instant::now() < end => sleep(PAUSE),
                Ok(()) | Err(Errno::WOULDBLOCK) => {
                    return Err(failure::volume(vault, &VolumeError::InUse));
                }
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

fn is_at(dir: &File, path: &Path) -> bool {
    let id = |found: io::Result<Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    id(dir.metadata()).is_some_and(|own| Some(own) == id(path.metadata()))
}

fn is_a_vault(vault: &Path) -> CliError {
    CliError::new(Exit::Refused, format!("{} is a vault already", vault.display()))
        .advise("nothing was changed; make another one elsewhere")
}

/// The options that name the same source of keys, each with a space behind it.
fn options(kms: &KmsArgs) -> String {
    kms.words().iter().map(|word| format!("{} ", word.to_string_lossy())).collect()
}

/// Removes what a failed attempt has left of a directory that it made. Anything else that is in it
/// keeps it.
fn remove_rest(vault: &Path) {
    let _ = std::fs::remove_file(vault.join(DIR_FILE));
    let _ = std::fs::remove_dir(vault.join(META_DIR));
    let _ = std::fs::remove_dir(vault);
}

fn usable_key(keystore: &Keystore, named: &str) -> Result<KeyId, CliError> {
    let key = if named == DEFAULT_ALIAS {
        keystore.ensure_default_key(SystemTime::now())?
    } else {
        key_id(keystore, named)?
    };
    match keystore.key_state(key)? {
        KeyState::Enabled => Ok(key),
        KeyState::Disabled => Err(KeystoreError::Disabled(key).into()),
        state => Err(KeystoreError::InvalidState { key, state }.into()),
    }
}

fn not_empty(vault: &Path) -> CliError {
    CliError::new(
        Exit::NotAVault,
        format!("{} is not a vault, and not empty either", vault.display()),
    )
    .advise("a vault is made in a directory that is missing or empty")
}

/// How long somebody else may take to make a vault.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);
