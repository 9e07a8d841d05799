//! What a sync of a directory has to make durable besides the directory itself.
//!
//! A child directory is of no use without its descriptor, whose *contents* are a file of their own,
//! which a sync of the parent alone would leave behind.
//! Memory is bounded: a directory with many of them, or many such directories, are synced by one
//! sync of the whole backing filesystem instead.
//!
//! Nothing is forgotten before it is durable: whoever syncs the same directory at the same time must
//! not find an empty list while the first sync is still under way. So a sync only looks, and what
//! it found is dropped once it has succeeded; what came in the meantime stays.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};

use crate::volume::backing::beneath::BackingName;

const MAX_ITEMS: usize = 64;
const MAX_DIRS: usize = 16_384;

/// Names in directories whose contents are not known to be durable.
#[derive(Debug, Default)]
pub(in crate::volume) struct Unsynced {
    dirs: Mutex<Dirs>,
}

/// What one directory has that is not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) enum Pending {
    /// These backing names, of child directories.
    Names(Vec<BackingName>),
    /// More than is worth a list.
    Everything,
}

/// A moment: a sync that began then makes durable what was noted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::volume) struct Moment(u64);

#[derive(Debug, Default)]
struct Dirs {
    pending: HashMap<u64, OwedNames>,
    /// The map was full, last at this moment: every directory is taken to have something.
    overflow: Option<Moment>,
    now: Moment,
}

/// The names of one directory, each with the moment of its last change.
#[derive(Debug)]
enum OwedNames {
    Names(Vec<(Moment, BackingName)>),
    Everything(Moment),
}

impl Unsynced {
    /// Notes that `name` in `dir` is a new child directory.
    pub(in crate::volume) fn add(&self, dir: u64, name: &BackingName) {
        let mut dirs = self.lock();
        dirs.now.0 += 1;
        let now = dirs.now;
        if dirs.pending.len() >= MAX_DIRS && !dirs.pending.contains_key(&dir) {
            dirs.overflow = Some(now);
            return;
        }
        let noted = dirs.pending.entry(dir).or_insert_with(|| OwedNames::Names(Vec::new()));
        match noted {
            OwedNames::Names(names) => {
                names.retain(|(_, known)| known != name);
                names.push((now, name.clone()));
                if names.len() > MAX_ITEMS {
                    *noted = OwedNames::Everything(now);
                }
            }
            OwedNames::Everything(last) => *last = now,
        }
    }

    /// What `dir` has now, to be made durable and then told to [`Self::synced`].
    pub(in crate::volume) fn of(&self, dir: u64) -> (Pending, Moment) {
        let dirs = self.lock();
        let pending = match dirs.pending.get(&dir) {
            _ if dirs.overflow.is_some() => Pending::Everything,
            Some(OwedNames::Everything(_)) => Pending::Everything,
            Some(OwedNames::Names(names)) => {
                Pending::Names(names.iter().map(|(_, name)| name.clone()).collect())
            }
            None => Pending::Names(Vec::new()),
        };
        (pending, dirs.now)
    }

    /// True if no directory has anything.
    pub(in crate::volume) fn is_empty(&self) -> bool {
        let dirs = self.lock();
        dirs.pending.is_empty() && dirs.overflow.is_none()
    }

    /// True if `dir` has something that is not durable.
    pub(in crate::volume) fn has(&self, dir: u64) -> bool {
        let dirs = self.lock();
        dirs.overflow.is_some() || dirs.pending.contains_key(&dir)
    }

    /// The moment at which a sync of the whole backing filesystem begins.
    pub(in crate::volume) fn now(&self) -> Moment {
        self.lock().now
    }

    /// What `dir` had at this moment is durable.
    pub(in crate::volume) fn synced(&self, dir: u64, at: Moment) {
        let mut dirs = self.lock();
        if dirs.pending.get_mut(&dir).is_some_and(|noted| noted.drop_until(at)) {
            dirs.pending.remove(&dir);
        }
    }

    /// What all directories had at this moment is durable.
    pub(in crate::volume) fn all_synced(&self, at: Moment) {
        let mut dirs = self.lock();
        dirs.pending.retain(|_, noted| !noted.drop_until(at));
        dirs.overflow = dirs.overflow.filter(|last| *last > at);
    }

    /// The directory is gone.
    pub(in crate::volume) fn remove(&self, dir: u64) {
        self.lock().pending.remove(&dir);
    }

    fn lock(&self) -> MutexGuard<'_, Dirs> {
        self.dirs.lock()
    }
}

impl OwedNames {
    /// Drops what was noted up to a moment; true if nothing is left.
    fn drop_until(&mut self, at: Moment) -> bool {
        match self {
            Self::Names(names) => {
                names.retain(|(noted, _)| *noted > at);
                names.is_empty()
            }
            Self::Everything(last) => *last <= at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BackingName {
        BackingName::new(text.as_bytes()).unwrap()
    }

    fn names(names: &[&str]) -> Pending {
        Pending::Names(names.iter().map(|text| name(text)).collect())
    }

    #[test]
    fn a_sync_under_way_hides_nothing_from_a_second_one() {
        let unsynced = Unsynced::default();
        unsynced.add(5, &name("a"));
        let (first, at) = unsynced.of(5);
        assert_eq!(first, names(&["a"]));
        assert_eq!(unsynced.of(5).0, first, "the first sync has not come back yet");
        unsynced.synced(5, at);
        assert_eq!(unsynced.of(5).0, names(&[]));
    }

    #[test]
    fn what_came_during_a_sync_stays() {
        let unsynced = Unsynced::default();
        for text in ["a", "b"] {
            unsynced.add(5, &name(text));
        }
        let (_, at) = unsynced.of(5);
        for text in ["b", "c"] {
            unsynced.add(5, &name(text));
        }
        unsynced.synced(5, at);
        assert_eq!(unsynced.of(5).0, names(&["b", "c"]), "b was made anew");
        let at = unsynced.now();
        unsynced.add(6, &name("d"));
        unsynced.all_synced(at);
        assert_eq!((unsynced.of(5).0, unsynced.of(6).0), (names(&[]), names(&["d"])));
    }

    #[test]
    fn many_names_become_everything() {
        let unsynced = Unsynced::default();
        for i in 0..=MAX_ITEMS {
            unsynced.add(5, &name(&i.to_string()));
        }
        let (pending, at) = unsynced.of(5);
        assert_eq!(pending, Pending::Everything);
        assert_eq!(unsynced.of(5).0, Pending::Everything, "until that sync has come back");
        unsynced.all_synced(at);
        assert_eq!(unsynced.of(5).0, names(&[]));
    }

    #[test]
    fn a_full_map_takes_every_directory_to_have_something() {
        let unsynced = Unsynced::default();
        for dir in 0..=MAX_DIRS as u64 {
            unsynced.add(dir, &name("a"));
        }
        let (pending, at) = unsynced.of(u64::MAX);
        assert_eq!(pending, Pending::Everything);
        assert_eq!(unsynced.of(5).0, Pending::Everything);
        unsynced.all_synced(at);
        assert_eq!(unsynced.of(5).0, names(&[]), "synced with the rest");
        unsynced.add(7, &name("a"));
        assert_eq!(unsynced.of(u64::MAX).0, names(&[]), "there is room again");
    }
}
