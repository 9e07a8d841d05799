//! What a sync of a directory has to make durable besides the directory itself.
//!
//! A child directory is of no use without its descriptor, nor a long name without its sidecar:
//! their *contents* are files of their own, which a sync of the parent alone would leave behind.
//! Memory is bounded: a directory with many of them, or many such directories, are synced by one
//! sync of the whole backing filesystem instead.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::beneath::BackingName;

const MAX_ITEMS: usize = 64;
const MAX_DIRS: usize = 16_384;

/// Names in directories whose contents are not known to be durable.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    dirs: Mutex<Dirs>,
}

/// What one directory has that is not durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pending {
    /// These backing names: sidecars and child directories.
    Names(Vec<BackingName>),
    /// More than is worth a list.
    Everything,
}

#[derive(Debug, Default)]
struct Dirs {
    pending: HashMap<u64, Pending>,
    /// Set when the map was full: every directory is then taken to have something.
    overflow: bool,
}

impl Unsynced {
    /// Notes that the sidecar or child directory `name` in `dir` is new.
    pub(super) fn add(&self, dir: u64, name: &BackingName) {
        let mut dirs = self.lock();
        if dirs.pending.len() >= MAX_DIRS && !dirs.pending.contains_key(&dir) {
            dirs.overflow = true;
            return;
        }
        let pending = dirs.pending.entry(dir).or_insert_with(|| Pending::Names(Vec::new()));
        match pending {
            Pending::Names(names) if names.len() < MAX_ITEMS => names.push(name.clone()),
            Pending::Names(_) => *pending = Pending::Everything,
            Pending::Everything => {}
        }
    }

    /// Takes what `dir` has, to make it durable. If that is everything, it is what all
    /// directories have: one sync of the backing filesystem does for them all.
    pub(super) fn take(&self, dir: u64) -> Pending {
        let mut dirs = self.lock();
        match dirs.pending.remove(&dir) {
            Some(Pending::Everything) => {}
            _ if dirs.overflow => {}
            pending => return pending.unwrap_or(Pending::Names(Vec::new())),
        }
        *dirs = Dirs::default();
        Pending::Everything
    }

    /// Gives back what [`Self::take`] took: it could not be made durable.
    pub(super) fn give_back(&self, dir: u64, pending: Pending) {
        match pending {
            Pending::Names(names) => names.iter().for_each(|name| self.add(dir, name)),
            Pending::Everything => self.lock().overflow = true,
        }
    }

    /// True if the sidecar `name` in `dir` is not known to be durable.
    pub(super) fn has(&self, dir: u64, name: &BackingName) -> bool {
        let dirs = self.lock();
        match dirs.pending.get(&dir) {
            Some(Pending::Names(names)) => names.contains(name),
            Some(Pending::Everything) => true,
            None => dirs.overflow,
        }
    }

    /// The directory is gone.
    pub(super) fn remove(&self, dir: u64) {
        self.lock().pending.remove(&dir);
    }

    fn lock(&self) -> MutexGuard<'_, Dirs> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BackingName {
        BackingName::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_taken_is_gone_until_given_back() {
        let unsynced = Unsynced::default();
        unsynced.add(5, &name("a"));
        let taken = unsynced.take(5);
        assert_eq!(taken, Pending::Names(vec![name("a")]));
        assert!(!unsynced.has(5, &name("a")));
        unsynced.give_back(5, taken);
        assert!(unsynced.has(5, &name("a")));
    }

    #[test]
    fn many_names_become_everything() {
        let unsynced = Unsynced::default();
        for i in 0..=MAX_ITEMS {
            unsynced.add(5, &name(&i.to_string()));
        }
        assert_eq!(unsynced.take(5), Pending::Everything);
    }

    #[test]
    fn a_full_map_takes_every_directory_to_have_something() {
        let unsynced = Unsynced::default();
        for dir in 0..=MAX_DIRS as u64 {
            unsynced.add(dir, &name("a"));
        }
        let taken = unsynced.take(u64::MAX);
        assert_eq!(taken, Pending::Everything);
        assert_eq!(unsynced.take(5), Pending::Names(vec![]), "taken with the rest");
        unsynced.give_back(u64::MAX, taken);
        assert_eq!(unsynced.take(5), Pending::Everything);
    }
}
