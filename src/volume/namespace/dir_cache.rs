//! The directories that are held open: a bounded number, whatever the kernel knows.
//!
//! A directory stays usable through its `Arc` after it has left the cache. Eviction is by second
//! chance, so a hit only takes the lock for reading.
//!
//! What a directory may say depends on those above it. When one of these has changed, each directory
//! below is compared with the one above it before it is used again, up to one that was compared
//! already. So a change costs nothing for the thousands that nobody asks for, and no search for those
//! below.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::dir::Dir;

/// Open directories by inode number.
#[derive(Debug)]
pub(in crate::volume) struct DirCache {
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

/// What was opened in one era is not added in the next: a KMS key has changed its state, or a
/// descriptor was replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::volume) struct Era {
    drops: u64,
    /// How often a descriptor was replaced.
    descriptors: u64,
    /// How often something changed that directories below depend on.
    above: u64,
}

/// Which directories a new descriptor concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Concerns {
    /// The directory alone: its own wrap, or its place.
    Itself,
    /// Those below as well: it says something else of keys, or has moved.
    AllBelow,
}

#[derive(Debug)]
struct Slot {
    dir: Arc<Dir>,
    used: AtomicBool,
    /// [`Era::above`] when it was last known to fit what is above it.
    fits: u64,
}

impl Era {
    /// What of it can change the names that directories show, besides the state of their keys.
    pub(in crate::volume) fn of_names(self) -> (u64, u64) {
        (self.descriptors, self.above)
    }
}

impl DirCache {
    /// A cache of at most `capacity` directories.
    pub(in crate::volume) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), inner: RwLock::default() }
    }

    /// The directory, if it is held open and is still below the same directories.
    pub(in crate::volume) fn find(&self, ino: u64) -> Option<Arc<Dir>> {
        let inner = self.read();
        let slot = inner.dirs.get(&ino)?;
        if slot.fits == inner.era.above {
            slot.used.store(true, Ordering::Relaxed);
            return Some(Arc::clone(&slot.dir));
        }
        drop(inner);
        self.write().find_fitting(ino)
    }

    /// The era that opening a directory begins in.
    pub(in crate::volume) fn era(&self) -> Era {
        self.read().era
    }

    /// Adds a directory and returns the one to use: the one that is already there, if any. One that
    /// comes too late serves only its own request.
    pub(in crate::volume) fn add(&self, dir: Arc<Dir>, begun: Era) -> Arc<Dir> {
        let mut inner = self.write();
        if inner.era != begun {
            return dir;
        }
        if let Some(known) = inner.find_fitting(dir.ino()) {
            return known;
        }
        while inner.dirs.len() >= self.capacity {
            inner.evict();
        }
        let (used, fits) = (AtomicBool::new(true), inner.era.above);
        let slot = Slot { dir: Arc::clone(&dir), used, fits };
        inner.dirs.insert(dir.ino(), slot);
        inner.clock.push_back(dir.ino());
        dir
    }

    /// Adds a directory that is out of its place, and drops all others: what is below it was verified
    /// while it was in its place. `begun` goes on with the era that this begins.
    pub(in crate::volume) fn add_alone(&self, dir: Arc<Dir>, begun: &mut Era) -> Arc<Dir> {
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

    /// True if a descriptor was replaced since `begun`: then a descriptor from before may have been
    /// compared with what was noted after, which says nothing of who put it there.
    pub(in crate::volume) fn has_changed_since(&self, begun: Era) -> bool {
        self.read().era.descriptors != begun.descriptors
    }

    /// Drops a directory that was removed.
    pub(in crate::volume) fn remove(&self, ino: u64) {
        let mut inner = self.write();
        inner.dirs.remove(&ino);
        inner.era.drops += 1;
    }

    /// Drops a directory that was moved behind our back, and all that was verified below it.
    pub(in crate::volume) fn has_left(&self, ino: u64) {
        let mut inner = self.write();
        inner.dirs.remove(&ino);
        inner.era.drops += 1;
        inner.era.above += 1;
    }

    /// Drops a directory whose descriptor was replaced, before what is new in it is noted anywhere:
    /// whoever finds the note finds the change as well.
    pub(in crate::volume) fn descriptor_changed(&self, ino: u64, concerns: Concerns) {
        let mut inner = self.write();
        inner.dirs.remove(&ino);
        inner.era.drops += 1;
        inner.era.descriptors += 1;
        inner.era.above += u64::from(concerns == Concerns::AllBelow);
    }

    /// Drops all directories, with their keys, because a KMS key changed its state, and returns
    /// which there were.
    pub(in crate::volume) fn clear(&self) -> Vec<u64> {
        self.write().clear()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write()
    }
}

impl Inner {
    /// The directory, if each one up to the root is the one under which the next was opened. What does
    /// not fit is dropped, and so is what is below it: it is opened anew, from above.
    fn find_fitting(&mut self, ino: u64) -> Option<Arc<Dir>> {
        let now = self.era.above;
        let (mut climbed, mut at) = (Vec::new(), ino);
        let fits = loop {
            let Some(slot) = self.dirs.get(&at) else { break false };
            if slot.fits == now {
                break true;
            }
            climbed.push(at);
            let Some(link) = slot.dir.link() else { break true };
            let above = self.dirs.get(&link.parent).filter(|_| climbed.len() <= self.dirs.len());
            if !above.is_some_and(|above| slot.dir.fits_below(&above.dir)) {
                break false;
            }
            at = link.parent;
        };
        for ino in climbed {
            if !fits {
                self.dirs.remove(&ino);
            } else if let Some(slot) = self.dirs.get_mut(&ino) {
                slot.fits = now;
            }
        }
        let slot = self.dirs.get(&ino)?;
        slot.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&slot.dir))
    }

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
