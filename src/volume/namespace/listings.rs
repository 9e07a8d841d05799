//! Which directories' listings the kernel keeps, and whether they may still be right.
//!
//! The kernel keeps the entries that a listing gave it, and drops them when a request of its own changes
//! the directory. What changes behind the mount it does not see: whoever opens a directory compares it
//! with what it was when the kernel began to keep it. So a listing that is kept was read after that.
//!
//! A listing that is kept stands in for the lookups that listing again would bring. When the kernel has
//! forgotten an inode of the directory, or got names without attributes, the next open lists again.
//!
//! Locks: one, for a map access.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What the kernel is told when it opens a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// It keeps nothing of what it is told.
    Passing,
    /// It drops what it has kept, and keeps what it is told.
    New,
    /// What it has kept is right.
    Kept,
}

/// The listings that the kernel may have.
#[derive(Debug, Default)]
pub(in crate::volume) struct Listings(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<u64, Known>,
    /// Those that an answer under way may have filled once more after they were dropped.
    again: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// Fingerprint of the directory when the kernel began to keep this listing.
    state: u64,
    begun: Instant,
    /// The next open lists again.
    outdated: bool,
}

impl Listings {
    /// The kernel opens the directory `ino` at `now`. `state` is a fingerprint of it from before anybody
    /// lists it; `None` if its listing must not be kept.
    pub(in crate::volume) fn open(&self, ino: u64, state: Option<u64>, now: Instant) -> Listing {
        let mut inner = self.0.lock();
        let Some(state) = state else {
            // Opened like this, the kernel drops what it had.
            inner.known.remove(&ino);
            return Listing::Passing;
        };
        let known = inner.known.get(&ino).copied();
        if known.is_some_and(|known| known.is_right(state, now)) {
            return Listing::Kept;
        }
        if known.is_none() && inner.known.len() >= MOST {
            return Listing::Passing;
        }
        inner.known.insert(ino, Known { state, begun: now, outdated: false });
        Listing::New
    }

    /// The next open of `ino` lists it again.
    pub(in crate::volume) fn outdate(&self, ino: u64) {
        if let Some(known) = self.0.lock().known.get_mut(&ino) {
            known.outdated = true;
        }
    }

    /// The kernel has forgotten `ino`, and its listing with it.
    pub(in crate::volume) fn forget(&self, ino: u64) {
        self.0.lock().known.remove(&ino);
    }

    /// The kernel was told names that it must not keep: it is asked to drop them soon.
    pub(in crate::volume) fn spoil(&self, ino: u64) {
        let mut inner = self.0.lock();
        inner.known.remove(&ino);
        if inner.again.last() != Some(&ino) {
            inner.again.push(ino);
        }
    }

    /// All of them, which the kernel has to drop at once.
    pub(in crate::volume) fn drop_all(&self) -> Vec<u64> {
        let mut inner = self.0.lock();
        let all: Vec<u64> = inner.known.drain().map(|(ino, _)| ino).collect();
        inner.again.extend(&all);
        all
    }

    /// Those that the kernel has to drop once more.
    pub(in crate::volume) fn take_again(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().again)
    }
}

impl Known {
    fn is_right(&self, state: u64, now: Instant) -> bool {
        !self.outdated && self.state == state && now.duration_since(self.begun) < LONGEST
    }
}

/// How many listings the kernel may keep: about 40 bytes each here.
const MOST: usize = 1 << 17;
/// How long, at most: listing again brings attributes before those that the kernel has are too old.
const LONGEST: Duration = Duration::from_secs(1800);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_kept_while_the_directory_is_as_it_was() {
        let (listings, now) = (Listings::default(), Instant::now());
        assert_eq!(listings.open(7, Some(1), now), Listing::New);
        assert_eq!(listings.open(7, Some(1), now), Listing::Kept);
        assert_eq!(listings.open(7, Some(2), now), Listing::New);
        assert_eq!(listings.open(7, Some(2), now + LONGEST), Listing::New);
        listings.outdate(7);
        assert_eq!(listings.open(7, Some(2), now), Listing::New);
        assert_eq!(listings.open(7, None, now), Listing::Passing);
        assert_eq!(listings.open(7, Some(2), now), Listing::New);
    }

    #[test]
    fn what_is_dropped_is_dropped_once_more() {
        let (listings, now) = (Listings::default(), Instant::now());
        listings.open(7, Some(1), now);
        listings.outdate(7);
        assert_eq!(listings.drop_all(), [7]);
        listings.spoil(8);
        assert_eq!(listings.take_again(), [7, 8]);
        assert!(listings.take_again().is_empty() && listings.drop_all().is_empty());
        assert_eq!(listings.open(7, Some(1), now), Listing::New);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (listings, now) = (Listings::default(), Instant::now());
        let of = |ino: usize| listings.open(ino as u64, Some(1), now);
        assert!((0..MOST).all(|ino| of(ino) == Listing::New));
        assert_eq!(of(MOST), Listing::Passing);
        assert_eq!(of(0), Listing::Kept);
        listings.forget(0);
        assert_eq!(of(MOST), Listing::New);
    }
}
