//! The locks that keep (directory, name) pairs still while someone acts on them.
//!
//! **Discipline.** Whoever changes entries of a directory (create, link, unlink, rename) holds its lock
//! for writing; whoever acts on an inode through one of its entries (stat, chmod, open) holds it for
//! reading, from finding the entry in the inode table to the system call on it. A request takes the
//! locks of all directories that it needs in one call, in the order of the stripes, and takes no second
//! set before it has given the first back: so there is no cycle. A directory is resolved
//! (`ops::inodes::reach`) before the locks are taken, never while they are held, and the lock of an
//! open file is taken before them, never after.
//!
//! Directories share 256 stripes, so the locks need no memory per directory.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const STRIPES: u64 = 256;

/// The lock of every directory.
#[derive(Debug)]
pub(in crate::volume) struct DirLocks {
    stripes: Vec<RwLock<()>>,
}

/// Keeps the entries of some directories from being changed by others.
#[derive(Debug)]
pub(in crate::volume) struct Changing<'a> {
    _guards: Vec<RwLockWriteGuard<'a, ()>>,
}

impl DirLocks {
    /// Locks for any number of directories.
    pub(in crate::volume) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| RwLock::default()).collect() }
    }

    /// Holds the entries of `dir` as they are. Locks: takes one stripe for reading.
    pub(in crate::volume) fn reading(&self, dir: u64) -> RwLockReadGuard<'_, ()> {
        self.stripes[stripe(dir)].read()
    }

    /// Claims the entries of all `dirs`. Locks: takes their stripes for writing, in order.
    pub(in crate::volume) fn changing(&self, dirs: &[u64]) -> Changing<'_> {
        let mut indices: Vec<usize> = dirs.iter().map(|dir| stripe(*dir)).collect();
        indices.sort_unstable();
        indices.dedup();
        let write = |i: usize| self.stripes[i].write();
        Changing { _guards: indices.into_iter().map(write).collect() }
    }
}

impl Default for DirLocks {
    fn default() -> Self {
        Self::new()
    }
}

/// Neighbouring inode numbers fall on different stripes.
fn stripe(dir: u64) -> usize {
    usize::try_from(dir % STRIPES).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_directories_on_one_stripe_do_not_deadlock() {
        let locks = DirLocks::new();
        let _changing = locks.changing(&[3, 3 + STRIPES, 9, 3]);
    }

    #[test]
    fn readers_share() {
        let locks = DirLocks::new();
        let _one = locks.reading(5);
        let _two = locks.reading(6);
        let _changing = locks.changing(&[7]);
    }
}
