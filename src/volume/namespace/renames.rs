//! What is renamed while somebody walks the tree.
//!
//! A walk goes from name to name, so it can miss what is renamed under it, without a trace. So it
//! watches: whatever is given a name meanwhile is noted, with its inode and the names that it may have,
//! and is visited afterwards. If that has no end, the last round holds all renames for a moment.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::inode::Link;

/// Every change by which an inode gets another name.
#[derive(Debug, Default)]
pub(in crate::volume) struct Renames {
    authorizer: RwLock<()>,
    watches: Mutex<Vec<Weak<Mutex<HeardRenames>>>>,
}

/// What one walk hears of renames.
#[derive(Debug)]
pub(in crate::volume) struct RenameWatch(Arc<Mutex<HeardRenames>>);

/// An inode, and links, one of which leads to it.
pub(in crate::volume) type Moved = (u64, Vec<Link>);

#[derive(Debug, Default)]
struct HeardRenames {
    moved: HashMap<u64, Vec<Link>>,
    /// More were moved than are kept.
    overflowed: bool,
    /// Something was moved, or lost a name, since the beginning.
    changed: bool,
}

impl Renames {
    /// Held by whoever gives an inode another name, from before the first look until that is done.
    /// *Locks*: taken before all others.
    pub(in crate::volume) fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.authorizer.read()
    }

    /// While this lives, nothing gets another name. *Locks*: taken before all others, and by nobody
    /// who answers a request.
    pub(in crate::volume) fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.authorizer.write()
    }

    /// Tells every walk, before it is done, that an inode is to move: whether that succeeds or not,
    /// one of these links leads to it.
    pub(in crate::volume) fn note(&self, ino: u64, links: &[Link]) {
        self.tell(|noted| {
            noted.changed = true;
            noted.add((ino, links.to_vec()));
        });
    }

    /// Tells every walk that a name is to go.
    pub(in crate::volume) fn note_removal(&self) {
        self.tell(|noted| noted.changed = true);
    }

    /// Begins to watch.
    pub(in crate::volume) fn watch(&self) -> RenameWatch {
        let noted = Arc::default();
        self.watches.lock().push(Arc::downgrade(&noted));
        RenameWatch(noted)
    }

    fn tell(&self, tell: impl Fn(&mut HeardRenames)) {
        self.watches.lock().retain(|watch| match watch.upgrade() {
            Some(noted) => {
                tell(&mut noted.lock());
                true
            }
            None => false,
        });
    }
}

impl RenameWatch {
    /// What was noted since the last time.
    pub(in crate::volume) fn take(&self) -> Vec<Moved> {
        std::mem::take(&mut self.0.lock().moved).into_iter().collect()
    }

    /// Notes again what could not be found now.
    pub(in crate::volume) fn put_back(&self, moved: Moved) {
        let mut noted = self.0.lock();
        if !noted.moved.contains_key(&moved.0) {
            noted.add(moved);
        }
    }

    /// True if more was moved than was noted.
    pub(in crate::volume) fn has_overflowed(&self) -> bool {
        self.0.lock().overflowed
    }

    /// True if a change through this volume explains that a name has gone.
    pub(in crate::volume) fn has_seen_changes(&self) -> bool {
        self.0.lock().changed
    }
}

impl HeardRenames {
    fn add(&mut self, (ino, links): Moved) {
        if self.moved.len() < MOST || self.moved.contains_key(&ino) {
            self.moved.insert(ino, links);
        } else {
            self.overflowed = true;
        }
    }
}

/// Inodes that are noted at once for one walk.
const MOST: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::backing::beneath::BackingName;

    fn link(parent: u64) -> Link {
        Link { parent, name: BackingName::new(*b"name").unwrap() }
    }

    #[test]
    fn a_walk_is_told_once_of_what_moves_while_it_watches() {
        let renames = Renames::default();
        renames.note(1, &[link(10)]);
        let watch = renames.watch();
        assert!(watch.take().is_empty() && !watch.has_seen_changes());
        renames.note(2, &[link(10), link(11)]);
        renames.note(2, &[link(11), link(12)]);
        assert_eq!(watch.take(), [(2, vec![link(11), link(12)])]);
        assert!(watch.take().is_empty() && watch.has_seen_changes());
        watch.put_back((2, vec![link(11)]));
        renames.note(2, &[link(13)]);
        watch.put_back((2, vec![link(11)]));
        assert_eq!(watch.take(), [(2, vec![link(13)])], "the newest counts");
        drop(watch);
        renames.note(3, &[link(10)]);
        assert!(renames.watches.lock().is_empty());
    }

    #[test]
    fn what_is_too_much_to_note_is_not_forgotten_silently() {
        let renames = Renames::default();
        let watch = renames.watch();
        for ino in 0..MOST as u64 {
            renames.note(ino, &[]);
        }
        assert!(!watch.has_overflowed());
        renames.note(u64::MAX, &[]);
        assert!(watch.has_overflowed());
    }
}
