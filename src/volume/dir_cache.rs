//! The directories that are held open: a bounded number, whatever the kernel knows.
//!
//! A directory stays usable through its `Arc` after it has left the cache. Eviction is by second
//! chance, so a hit only takes the lock for reading.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::dir::Dir;

/// Open directories by inode number.
#[derive(Debug)]
pub(super) struct DirCache {
    capacity: usize,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    dirs: HashMap<u64, Slot>,
    /// Order of the second-chance clock; may name directories that are gone.
    clock: VecDeque<u64>,
    era: Era,
}

/// What was opened in one era is not added in the next: since then a KMS key changed its state, or a
/// descriptor was replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Era {
    drops: u64,
    /// How often a descriptor was replaced.
    descriptors: u64,
}

#[derive(Debug)]
struct Slot {
    dir: Arc<Dir>,
    used: AtomicBool,
}

impl DirCache {
    /// A cache of at most `capacity` directories.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: RwLock::default() }
    }

    /// The directory, if it is held open.
    pub(super) fn find(&self, ino: u64) -> Option<Arc<Dir>> {
        let inner = self.read();
        let slot = inner.dirs.get(&ino)?;
        slot.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&slot.dir))
    }

    /// The era that opening a directory begins in.
    pub(super) fn era(&self) -> Era {
        self.read().era
    }

    /// Adds a directory and returns the one to use: the one that is already there, if any. One that
    /// comes too late serves its own request and no other.
    pub(super) fn add(&self, dir: Arc<Dir>, begun: Era) -> Arc<Dir> {
        let mut inner = self.write();
        if inner.era != begun {
            return dir;
        }
        if let Some(slot) = inner.dirs.get(&dir.ino()) {
            return Arc::clone(&slot.dir);
        }
        while inner.dirs.len() >= self.capacity {
            inner.evict();
        }
        let slot = Slot { dir: Arc::clone(&dir), used: AtomicBool::new(true) };
        inner.dirs.insert(dir.ino(), slot);
        inner.clock.push_back(dir.ino());
        dir
    }

    /// Adds a directory that is out of its place, and drops all others: what is below it was verified
    /// while it was in its place. `begun` goes on with the era that this begins.
    pub(super) fn add_alone(&self, dir: Arc<Dir>, begun: &mut Era) -> Arc<Dir> {
        let mut inner = self.write();
        let in_time = inner.era == *begun;
        inner.clear();
        if in_time {
            *begun = inner.era;
            drop(inner);
            return self.add(dir, *begun);
        }
        dir
    }

    /// True if a descriptor was replaced since: one that was read before may be compared with what was
    /// noted after, and says nothing then of who put it there.
    pub(super) fn has_changed_since(&self, begun: Era) -> bool {
        self.read().era.descriptors != begun.descriptors
    }

    /// Drops a directory that was removed.
    pub(super) fn remove(&self, ino: u64) {
        let mut inner = self.write();
        inner.dirs.remove(&ino);
        inner.era.drops += 1;
    }

    /// Drops a directory whose descriptor was replaced. That comes before what is new in it is noted
    /// anywhere, so that whoever finds it noted finds it changed.
    pub(super) fn descriptor_changed(&self, ino: u64) {
        let mut inner = self.write();
        inner.dirs.remove(&ino);
        inner.era.drops += 1;
        inner.era.descriptors += 1;
    }

    /// Drops all directories, with their keys, because a KMS key changed its state, and returns
    /// which there were.
    pub(super) fn clear(&self) -> Vec<u64> {
        self.write().clear()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn clear(&mut self) -> Vec<u64> {
        self.era.drops += 1;
        self.clock.clear();
        self.dirs.drain().map(|(ino, _)| ino).collect()
    }

    fn evict(&mut self) {
        while let Some(ino) = self.clock.pop_front() {
            match self.dirs.get(&ino) {
                Some(slot) if slot.used.swap(false, Ordering::Relaxed) => self.clock.push_back(ino),
                Some(_) => {
                    self.dirs.remove(&ino);
                    return;
                }
                None => {}
            }
        }
        // The clock names every directory; if it ever did not, start over rather than spin.
        self.dirs.clear();
    }
}
