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

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

const STRIPES: u64 = 256;

/// The lock of every directory.
#[derive(Debug)]
pub(in crate::volume) struct DirLocks {
    stripes: Vec<Stripe>,
}

#[derive(Debug, Default)]
struct Stripe {
    lock: RwLock<()>,
    /// Claims that began or ended: odd while there is one.
    claims: AtomicU64,
}

/// Keeps the entries of some directories from being changed by others.
#[derive(Debug)]
pub(in crate::volume) struct Changing<'a> {
    _claims: Vec<Claim<'a>>,
}

#[derive(Debug)]
struct Claim<'a> {
    stripe: &'a Stripe,
    _guard: RwLockWriteGuard<'a, ()>,
}

/// Tells whether anybody has claimed the entries of a directory, for who cannot claim them: he may hold
/// others.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct Watch<'a> {
    stripe: &'a Stripe,
    seen: u64,
}

impl DirLocks {
    /// Locks for any number of directories.
    pub(in crate::volume) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect() }
    }

    /// Holds the entries of `dir` as they are. Locks: takes one stripe for reading.
    pub(in crate::volume) fn reading(&self, dir: u64) -> RwLockReadGuard<'_, ()> {
        self.stripes[stripe(dir)].lock.read()
    }

    /// Claims the entries of all `dirs`. Locks: takes their stripes for writing, in order.
    pub(in crate::volume) fn changing(&self, dirs: &[u64]) -> Changing<'_> {
        let mut indices: Vec<usize> = dirs.iter().map(|dir| stripe(*dir)).collect();
        indices.sort_unstable();
        indices.dedup();
        let claim = |i: usize| Claim::of(&self.stripes[i]);
        Changing { _claims: indices.into_iter().map(claim).collect() }
    }

    /// Watches the entries of `dir` from now on.
    pub(in crate::volume) fn watch(&self, dir: u64) -> Watch<'_> {
        let stripe = &self.stripes[stripe(dir)];
        Watch { stripe, seen: stripe.claims.load(Ordering::SeqCst) }
    }
}

impl<'a> Claim<'a> {
    fn of(stripe: &'a Stripe) -> Self {
        let guard = stripe.lock.write();
        stripe.claims.fetch_add(1, Ordering::SeqCst);
        Self { stripe, _guard: guard }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.stripe.claims.fetch_add(1, Ordering::SeqCst);
    }
}

impl Watch<'_> {
    /// True if nobody has claimed the directory, then or since. Others of its stripe count as well.
    pub(in crate::volume) fn is_undisturbed(&self) -> bool {
        self.seen.is_multiple_of(2) && self.stripe.claims.load(Ordering::SeqCst) == self.seen
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
    fn a_watch_sees_claims_and_no_readers() {
        let locks = DirLocks::new();
        let watch = locks.watch(5);
        let reading = locks.reading(5);
        drop(locks.changing(&[6]));
        assert!(watch.is_undisturbed());
        drop(reading);
        let changing = locks.changing(&[5]);
        let late = locks.watch(5);
        assert!(!watch.is_undisturbed() && !late.is_undisturbed());
        drop(changing);
        assert!(!watch.is_undisturbed() && !late.is_undisturbed());
        assert!(locks.watch(5).is_undisturbed());
    }

    #[test]
    fn readers_share() {
        let locks = DirLocks::new();
        let _one = locks.reading(5);
        let _two = locks.reading(6);
        let _changing = locks.changing(&[7]);
    }
}
