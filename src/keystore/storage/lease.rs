//! Which vaults somebody works with by this keystore at this moment.
//!
//! Whoever works with one holds a lock on a byte of the keystore's file, far behind its end. Which byte
//! follows from the vault's directory, by the numbers that it has in every mount namespace. So whoever
//! is about to destroy something learns of vaults that are not where they were, or are in containers.
//! The system takes a lock away when its process is gone, and asks for no room on the disk and no
//! right to write.
//!
//! The locks are those of an open file. SQLite's belong to the process, and closing any descriptor of
//! the file would drop them: so what is opened here is never closed.

use std::collections::BTreeSet;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::path::Path;

use crate::crypto::hash::sha256;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::file::io_error;
use crate::sys::{self, ByteRange};

/// The directory of a vault, as a lease names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeasedDir(u64);

impl LeasedDir {
    /// The directory with these numbers.
    pub fn new(device: u64, inode: u64) -> Self {
        let hash = sha256(&[LABEL, &device.to_be_bytes(), &inode.to_be_bytes()]);
        let bits = hash.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Self(FIRST + bits % (END - FIRST))
    }
}

/// Says that this process works with a vault, until the process is gone.
/// Errors: `Io`.
pub(in crate::keystore) fn lease(keystore: &Path, dir: LeasedDir) -> Result<(), KeystoreError> {
    let file = open(keystore)?;
    let range = ByteRange { start: dir.0, end: dir.0 + 1 };
    sys::lock_shared(&*file, range).map_err(|error| io_error(keystore, "lock", error.into()))
}

/// The vaults that other processes work with by this keystore.
/// Errors: `Io`.
pub(in crate::keystore) fn leased(keystore: &Path) -> Result<BTreeSet<LeasedDir>, KeystoreError> {
    let file = open(keystore)?;
    let (mut leased, mut ranges) = (BTreeSet::new(), vec![ByteRange { start: FIRST, end: END }]);
    while let Some(range) = ranges.pop() {
        if range.start >= range.end {
            continue;
        }
        let found = sys::locked_in(&*file, range);
        let found = found.map_err(|error| io_error(keystore, "look for locks of", error.into()))?;
        let Some(found) = found else { continue };
        // Locks that lie side by side may be told as one.
        let (start, end) = (found.start.max(range.start), found.end.min(range.end));
        leased.extend((start..end.min(start + SIDE_BY_SIDE)).map(LeasedDir));
        ranges.push(ByteRange { start: range.start, end: start });
        ranges.push(ByteRange { start: end, end: range.end });
    }
    Ok(leased)
}

fn open(keystore: &Path) -> Result<ManuallyDrop<File>, KeystoreError> {
    let file = File::open(keystore).map_err(|error| io_error(keystore, "open", error))?;
    Ok(ManuallyDrop::new(file))
}

const LABEL: &[u8] = b"kmsfs vault lease";
/// Behind everything that SQLite reads, writes or locks.
const FIRST: u64 = 1 << 60;
const END: u64 = 1 << 62;
/// Bytes of a lock that are taken for a lease each: somebody else's lock of everything is no leases.
const SIDE_BY_SIDE: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_of_others_are_found_whatever_is_locked_beside_them() {
        let path = std::env::temp_dir().join(format!("kmsfs-leases-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(leased(&path).unwrap(), BTreeSet::new());
        let dirs: BTreeSet<_> = (0..20).map(|number| LeasedDir::new(number % 3, number)).collect();
        assert_eq!(dirs.len(), 20);
        dirs.iter().for_each(|dir| lease(&path, *dir).unwrap());
        // Two may have the same vault, and two vaults neighbouring bytes.
        lease(&path, *dirs.first().unwrap()).unwrap();
        let neighbours = dirs.iter().map(|dir| LeasedDir(dir.0 + 1)).collect::<Vec<_>>();
        neighbours.iter().for_each(|dir| lease(&path, *dir).unwrap());
        let others = open(&path).unwrap();
        sys::lock_shared(&*others, ByteRange { start: 1 << 30, end: (1 << 30) + 512 }).unwrap();
        let mut expected = dirs;
        expected.extend(neighbours);
        assert_eq!(leased(&path).unwrap(), expected);
        std::fs::remove_file(&path).unwrap();
    }
}
