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
use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};

use crate::crypto::hash::sha256;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::file::{Identity, io_error};
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

/// The leases of this process.
#[derive(Default)]
pub(in crate::keystore) struct Leases(Mutex<Held>);

#[derive(Default)]
struct Held {
    dirs: BTreeSet<LeasedDir>,
    other: Option<Other>,
}

/// The file that has the keystore's name now, if it is not the one that was opened.
#[derive(Clone, Copy)]
struct Other {
    file: Identity,
    /// It could be opened: there is nothing more to try.
    opened: bool,
}

impl Leases {
    /// Says that this process works with a vault, until the process is gone.
    /// Errors: `Io`.
    pub(in crate::keystore) fn take(
        &self,
        keystore: &Path,
        dir: LeasedDir,
    ) -> Result<(), KeystoreError> {
        let mut held = self.0.lock();
        let file = open(keystore)?;
        lease(&file, dir).map_err(|error| io_error(keystore, "lock", error))?;
        held.dirs.insert(dir);
        Ok(())
    }

    /// Says the same by another file that has the keystore's name now, such as a backup that was put
    /// back: whoever destroys something there has to know as well. To be called again and again: who puts
    /// it there may give it its owner later.
    pub(in crate::keystore) fn follow(&self, name: &Path, file: Identity) {
        let mut held = self.0.lock();
        let before = held.other.filter(|other| other.file == file);
        if held.dirs.is_empty() || before.is_some_and(|other| other.opened) {
            return;
        }
        let opened = open(name);
        held.other = Some(Other { file, opened: opened.is_ok() });
        let taken = opened.and_then(|file| {
            let mut dirs = held.dirs.iter();
            dirs.try_for_each(|dir| lease(&file, *dir))
                .map_err(|error| io_error(name, "lock", error))
        });
        match taken {
            Ok(()) => {
                log::warn!("another file has the keystore's name: it knows of this mount too")
            }
            Err(_) if before.is_some() => {}
            Err(error) => {
                log::error!(
                    "another file has the keystore's name, and does not know of this mount: what the \
                     mount needs may be destroyed there: {error}"
                );
            }
        }
    }
}

fn lease(keystore: &File, dir: LeasedDir) -> io::Result<()> {
    sys::lock_shared(keystore, ByteRange { start: dir.0, end: dir.0 + 1 }).map_err(Into::into)
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
    // Not a keystore any more, perhaps: nothing that would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(keystore, flags, Mode::empty());
    let file = file.map_err(|errno| io_error(keystore, "open", errno.into()))?;
    Ok(ManuallyDrop::new(file.into()))
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
    use crate::keystore::storage::file::identity;

    #[test]
    fn leases_of_others_are_found_whatever_is_locked_beside_them() {
        let path = std::env::temp_dir().join(format!("kmsfs-leases-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(leased(&path).unwrap(), BTreeSet::new());
        let dirs: BTreeSet<_> = (0..20).map(|number| LeasedDir::new(number % 3, number)).collect();
        assert_eq!(dirs.len(), 20);
        let leases = Leases::default();
        let take = |dir: &LeasedDir| leases.take(&path, *dir).unwrap();
        dirs.iter().for_each(take);
        // Two may have the same vault, and two vaults neighbouring bytes.
        take(dirs.first().unwrap());
        let neighbours = dirs.iter().map(|dir| LeasedDir(dir.0 + 1)).collect::<Vec<_>>();
        neighbours.iter().for_each(take);
        let others = open(&path).unwrap();
        sys::lock_shared(&*others, ByteRange { start: 1 << 30, end: (1 << 30) + 512 }).unwrap();
        let mut expected = dirs;
        expected.extend(neighbours);
        assert_eq!(leased(&path).unwrap(), expected);
        std::fs::remove_file(&path).unwrap();
    }

    /// Another file in the place of the keystore had no leases, and whoever opened it learnt of no mount.
    #[test]
    fn regression_a_file_that_is_put_in_the_place_of_the_keystore_has_the_same_leases() {
        let dir = std::env::temp_dir().join(format!("kmsfs-leases-other-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (name, other) = (dir.join("keystore.db"), dir.join("other"));
        for path in [&name, &other] {
            std::fs::write(path, "").unwrap();
        }
        let dirs = BTreeSet::from([LeasedDir::new(1, 2), LeasedDir::new(1, 3)]);
        let leases = Leases::default();
        dirs.iter().for_each(|dir| leases.take(&name, *dir).unwrap());
        // Something that is no keystore, and would be waited for.
        let fifo = std::process::Command::new("mkfifo").arg(dir.join("fifo")).status();
        assert!(fifo.unwrap().success());
        std::fs::rename(dir.join("fifo"), &name).unwrap();
        leases.follow(&name, identity(&name).unwrap());
        std::fs::rename(&other, &name).unwrap();
        assert_eq!(leased(&name).unwrap(), BTreeSet::new());
        for _ in 0..2 {
            leases.follow(&name, identity(&name).unwrap());
            assert_eq!(leased(&name).unwrap(), dirs);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
