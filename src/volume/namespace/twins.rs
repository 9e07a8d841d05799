//! Directories with one id.
//!
//! An id stands for one directory: the names in it, and the places of those below it, are bound to it
//! alone. Two of them appear when somebody copies a directory while its descriptor is good for two
//! places, or puts an older copy back at a place that the directory has left since. What is in the one
//! could then be exchanged for what is in the other, so only one of them counts: the newer, or else the
//! one that was used first. The other is shown like a directory that is out of its place, and nothing
//! in it is lost.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::id::DirId;

/// Which directory counts for an id.
#[derive(Debug, Default)]
pub(in crate::volume) struct Twins(Mutex<HashMap<DirId, Claim>>);

/// A directory that was found with an id.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct Claim {
    pub(in crate::volume) ino: u64,
    pub(in crate::volume) sequence: u64,
}

impl Twins {
    /// Notes the claim and returns `None`, or returns the claim of another directory with that id.
    pub(in crate::volume) fn claim(&self, id: DirId, claim: Claim) -> Option<Claim> {
        let mut known = self.lock();
        match known.get(&id) {
            Some(other) if other.ino != claim.ino => Some(*other),
            _ => {
                known.insert(id, claim);
                None
            }
        }
    }

    /// From here on `claim` counts.
    pub(in crate::volume) fn hand_over(&self, id: DirId, claim: Claim) {
        self.lock().insert(id, claim);
    }

    /// Forgets those that nobody uses, once they are many.
    pub(in crate::volume) fn sweep(&self, used: usize, is_used: impl Fn(u64) -> bool) {
        let mut known = self.lock();
        if known.len() > 2 * used + SLACK {
            known.retain(|_, claim| is_used(claim.ino));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DirId, Claim>> {
        self.0.lock()
    }
}

/// How many directories are remembered although nobody uses them.
const SLACK: usize = 4096;
