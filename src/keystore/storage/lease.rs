//! Which vaults somebody works with by this keystore at this moment.
//!
//! A file beside the keystore stands for each, and is locked for as long as the process lives: the
//! system takes the lock away, whatever the process dies of. Its name says which directory the vault
//! is, by the numbers that it has in every mount namespace. So whoever is about to destroy something
//! learns of vaults that are not where they were, or are in containers.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::keystore::error::KeystoreError;
use crate::keystore::storage::companions::beside;
use crate::keystore::storage::directory::parent;
use crate::keystore::storage::file::{give, io_error, mark};

/// Held by a process that works with a vault.
#[derive(Debug)]
pub struct VaultLease {
    path: PathBuf,
    _locked: File,
}

/// A vault that somebody works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedVault {
    /// The directory, as whoever took the lease has named it.
    pub directory: String,
    /// The path by which that process knows it; empty if nobody may read it.
    pub path: PathBuf,
}

impl VaultLease {
    /// Says that this process works with the vault in `directory`, which it knows by `path`.
    /// Errors: `Io`.
    pub(in crate::keystore) fn take(
        keystore: &Path,
        directory: &str,
        path: &Path,
    ) -> Result<Self, KeystoreError> {
        let lease = beside(keystore, &format!("{PREFIX}{directory}.{}", mark()?));
        let failed = |error| io_error(&lease, "create", error);
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&lease);
            let mut file = file.map_err(failed)?;
            give(&file, keystore);
            flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
            // Somebody may have taken it for one that was left, in the moment before.
            if file.metadata().map_err(failed)?.nlink() == 1 {
                file.write_all(path.as_os_str().as_bytes()).map_err(failed)?;
                return Ok(Self { path: lease, _locked: file });
            }
        }
        Err(failed(Errno::AGAIN.into()))
    }
}

impl Drop for VaultLease {
    fn drop(&mut self) {
        // What stays is not locked, and goes with the next look.
        fs::remove_file(&self.path).ok();
    }
}

/// The vaults that somebody works with by this keystore. Removes what processes left that are gone.
/// Errors: `Io`.
pub(in crate::keystore) fn leased_vaults(
    keystore: &Path,
) -> Result<Vec<LeasedVault>, KeystoreError> {
    let dir = parent(keystore);
    let failed = |error| io_error(dir, "list", error);
    let prefix = keystore.file_name().map(|name| beside(Path::new(name), PREFIX));
    let prefix = prefix.unwrap_or_default().into_os_string().into_vec();
    let mut leased = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(rest) = name.as_bytes().strip_prefix(&*prefix) else { continue };
        let directory = rest.split(|byte| *byte == b'.').next().unwrap_or_default();
        if let Some(path) = holder(&entry.path()) {
            let directory = String::from_utf8_lossy(directory).into_owned();
            leased.push(LeasedVault { directory, path });
        }
    }
    Ok(leased)
}

/// What the holder of a lease says; `None`, and the file is gone, if nobody holds it any more.
fn holder(lease: &Path) -> Option<PathBuf> {
    let mut file = match File::open(lease) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // It cannot be told: somebody does.
        Err(_) => return Some(PathBuf::new()),
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        fs::remove_file(lease).ok();
        return None;
    }
    let mut path = Vec::new();
    let read = Read::by_ref(&mut file).take(LONGEST).read_to_end(&mut path);
    Some(read.map_or_else(|_| PathBuf::new(), |_| std::ffi::OsString::from_vec(path).into()))
}

const PREFIX: &str = ".mount-";
/// A lease that has no lock yet can be removed only by somebody who looks at that very moment.
const TRIES: u32 = 8;
/// Bytes of a path.
const LONGEST: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vault_is_leased_until_its_process_lets_go() {
        let dir = std::env::temp_dir().join(format!("kmsfs-leases-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let keystore = dir.join("store.db");
        fs::write(&keystore, "").unwrap();
        fs::write(dir.join("store.db-wal"), "").unwrap();
        fs::write(dir.join("other.db.mount-1-2.x"), "").unwrap();
        assert_eq!(leased_vaults(&keystore).unwrap(), []);
        let one = VaultLease::take(&keystore, "1-2", Path::new("/vault")).unwrap();
        let two = VaultLease::take(&keystore, "3-4", Path::new("/other")).unwrap();
        let mut leased = leased_vaults(&keystore).unwrap();
        leased.sort_by(|one, other| one.directory.cmp(&other.directory));
        let expected = |directory: &str, path: &str| LeasedVault {
            directory: directory.to_owned(),
            path: path.into(),
        };
        assert_eq!(leased, [expected("1-2", "/vault"), expected("3-4", "/other")]);
        drop(one);
        // What a killed process leaves has no lock.
        let left = two.path.clone();
        fs::write(dir.join("store.db.mount-5-6.left"), "/gone").unwrap();
        assert_eq!(leased_vaults(&keystore).unwrap(), [expected("3-4", "/other")]);
        assert!(left.exists() && !dir.join("store.db.mount-5-6.left").exists());
        drop(two);
        assert_eq!(leased_vaults(&keystore).unwrap(), []);
        fs::remove_dir_all(&dir).unwrap();
    }
}
