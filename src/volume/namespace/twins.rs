//! Directories with one id.
//!
//! An id stands for one directory: the names in it, and the places of those below it, are bound to it
//! alone. Two of them appear when somebody copies a directory while its descriptor is good for two
//! places, or puts an older copy back at a place that the directory has left since. What is in the one
//! could then be exchanged for what is in the other, so only one of them counts: the newer, or else the
//! one that was used first. The other is shown like a directory that is out of its place, and nothing
//! in it is lost.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::dir::Dir;
use super::inode::{ROOT, Whereabouts};
use crate::id::DirId;
use crate::volume::backing::beneath;
use crate::volume::engine::Volume;
use crate::volume::jobs::references::dir_copies;
use crate::volume::model::misplaced::Misplaced;

/// Which directory counts for an id.
#[derive(Debug, Default)]
pub(in crate::volume) struct Twins(Mutex<HashMap<DirId, Claim>>);

/// A directory that was found with an id.
#[derive(Debug, Clone, Copy)]
struct Claim {
    ino: u64,
    sequence: u64,
}

impl Twins {
    /// Notes the claim, unless another directory has that id: then that one's.
    fn claim(&self, id: DirId, claim: Claim) -> Option<Claim> {
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
    fn hand_over(&self, id: DirId, claim: Claim) {
        self.lock().insert(id, claim);
    }

    /// Forgets those that nobody uses, once they are many.
    fn sweep(&self, used: usize, is_used: impl Fn(u64) -> bool) {
        let mut known = self.lock();
        if known.len() > 2 * used + SLACK {
            known.retain(|_, claim| is_used(claim.ino));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DirId, Claim>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume {
    /// The directory that was opened in its place, as it counts beside others with its id. Locks:
    /// takes none that it keeps.
    pub(in crate::volume) fn only_twin(&self, dir: Dir) -> Dir {
        let Ok(found) = dir.descriptor() else { return dir };
        let (id, claim) = (found.dir, Claim { ino: dir.ino(), sequence: found.sequence });
        self.tree.twins.sweep(self.tree.inodes.count(), |ino| self.tree.inodes.knows(ino));
        let Some(other) = self.tree.twins.claim(id, claim) else { return dir };
        if self.has_id(other.ino, id) && other.sequence >= claim.sequence {
            return dir.refused(Misplaced::Twin);
        }
        self.tree.twins.hand_over(id, claim);
        // The other one, and what is below it, is looked at again.
        self.tree.dirs.clear();
        dir
    }

    /// True if the kernel knows `ino`, and its names still lead to a directory that claims this id.
    /// Whether that is in its place is not asked: it was when it was opened.
    fn has_id(&self, ino: u64, id: DirId) -> bool {
        let mut names = Vec::new();
        let mut at = ino;
        let mut above = loop {
            let Some(Whereabouts::Entry(link)) = self.tree.inodes.whereabouts(at) else {
                return false;
            };
            at = link.parent;
            names.push(link.name);
            if names.len() > self.tree.inodes.count() {
                return false;
            }
            let open = match self.tree.dirs.find(at) {
                Some(dir) => beneath::reopen_dir(&*dir),
                None if at == ROOT => beneath::reopen_dir(self.tree.root()),
                None => continue,
            };
            match open {
                Ok(open) => break open,
                Err(_) => return false,
            }
        };
        for name in names.iter().rev() {
            match beneath::open_dir(above.as_fd(), name) {
                Ok(below) => above = below,
                Err(_) => return false,
            }
        }
        let same =
            rustix::fs::fstat(&above).is_ok_and(|stat| self.tree.inodes.shown(stat.st_ino) == ino);
        same && dir_copies(&above).iter().any(|copy| copy.dir == id)
    }
}

/// So many directories are remembered although nobody uses them.
const SLACK: usize = 4096;
