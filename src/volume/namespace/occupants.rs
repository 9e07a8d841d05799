//! Which directory is at which place, as far as that is remembered outside of the vault (FORMAT section
//! 7.1): for directories with a policy of their own, and those above them. If another one is there that
//! was made earlier and is good for the same place, somebody other than the mount put it there.
//!
//! **Crash order.** At any time too little may be remembered, but never too much: a directory is noted
//! at a place once it is there durably, and before the mount brings something to a place that is
//! remembered as another's, it takes that out of the anchor. So a crash leaves a directory that nobody
//! vouches for until it is opened again, and none that is refused. The place that a directory has left
//! may still be remembered, which harms nobody.

use std::collections::{HashMap, HashSet};

use parking_lot::{Mutex, MutexGuard};

use crate::envelope::DirPlace;
use crate::id::DirId;
use crate::keystore::AnchoredPlace;

/// How many places are remembered: the last ones that were learnt.
pub(in crate::volume) const MOST: usize = 10_000;

/// What is known of places.
#[derive(Debug, Default)]
pub(in crate::volume) struct Occupants(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<DirPlace, Occupant>,
    /// The places that the anchor may name, whatever became of them since.
    saved: HashSet<DirPlace>,
    turn: u64,
    unsaved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Occupant {
    dir: DirId,
    /// When it was learnt.
    turn: u64,
}

/// What was known at one moment.
#[derive(Debug)]
pub(in crate::volume) struct Snapshot(Vec<(DirPlace, Occupant)>);

impl Occupants {
    /// Begins with what is remembered.
    pub(in crate::volume) fn remember(&self, places: &[AnchoredPlace]) {
        let mut inner = self.lock();
        for AnchoredPlace { place, directory } in places {
            inner.learn(*place, *directory);
            inner.saved.insert(*place);
        }
        inner.unsaved = false;
    }

    /// Forgets all: the vault was used elsewhere, and nobody here knows what was moved there.
    pub(in crate::volume) fn forget(&self) {
        let mut inner = self.lock();
        inner.unsaved = !inner.known.is_empty();
        inner.known.clear();
    }

    /// The directory that belongs at a place.
    pub(in crate::volume) fn at(&self, place: DirPlace) -> Option<DirId> {
        self.lock().known.get(&place).map(|occupant| occupant.dir)
    }

    /// True if the place belongs to another directory than `dir`.
    pub(in crate::volume) fn is_anothers(&self, place: DirPlace, dir: DirId) -> bool {
        self.at(place).is_some_and(|known| known != dir)
    }

    /// Notes that a directory is at a place. Where it was before stays noted until the mount has
    /// something else to put there: it may be an older copy of it that was found.
    pub(in crate::volume) fn learn(&self, place: DirPlace, dir: DirId) {
        self.lock().learn(place, dir);
    }

    /// The mount took the directory away from there.
    pub(in crate::volume) fn leave(&self, place: DirPlace, dir: DirId) {
        let mut inner = self.lock();
        if inner.known.get(&place).is_some_and(|occupant| occupant.dir == dir) {
            inner.known.remove(&place);
            inner.unsaved = true;
        }
    }

    /// Forgets any other directory at the place, which is for `dir` now. True if the anchor may name the
    /// place.
    pub(in crate::volume) fn vacate_for(&self, place: DirPlace, dir: DirId) -> bool {
        let mut inner = self.lock();
        if inner.known.get(&place).is_some_and(|occupant| occupant.dir != dir) {
            inner.known.remove(&place);
            inner.unsaved = true;
        }
        inner.saved.contains(&place)
    }

    /// The anchor does not name the place any more.
    pub(in crate::volume) fn note_released(&self, place: DirPlace) {
        self.lock().saved.remove(&place);
    }

    /// The anchor may name the place: nobody knows whether it was released.
    pub(in crate::volume) fn note_saved(&self, place: DirPlace) {
        self.lock().saved.insert(place);
    }

    /// What is to be saved, if anything has changed since the last time.
    pub(in crate::volume) fn take_unsaved(&self) -> Option<Snapshot> {
        let mut inner = self.lock();
        inner.shrink();
        let all = |inner: &Inner| inner.known.iter().map(|(place, at)| (*place, *at)).collect();
        std::mem::take(&mut inner.unsaved).then(|| Snapshot(all(&inner)))
    }

    /// What of `then` is still so, oldest first: it is about to be saved.
    pub(in crate::volume) fn still(&self, then: &Snapshot) -> Vec<AnchoredPlace> {
        let mut inner = self.lock();
        let is_so = |(place, at): &&(DirPlace, Occupant)| inner.known.get(place) == Some(at);
        let mut still: Vec<_> = then.0.iter().filter(is_so).copied().collect();
        still.sort_by_key(|(_, at)| at.turn);
        inner.saved.extend(still.iter().map(|(place, _)| *place));
        let place = |(place, at): (DirPlace, Occupant)| AnchoredPlace { place, directory: at.dir };
        still.into_iter().map(place).collect()
    }

    /// What was taken could not be saved.
    pub(in crate::volume) fn give_back(&self) {
        self.lock().unsaved = true;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

impl Inner {
    fn learn(&mut self, place: DirPlace, dir: DirId) {
        if self.known.get(&place).is_some_and(|occupant| occupant.dir == dir) {
            return;
        }
        self.turn += 1;
        self.known.insert(place, Occupant { dir, turn: self.turn });
        self.unsaved = true;
    }

    fn shrink(&mut self) {
        if self.known.len() > MOST {
            let mut turns: Vec<_> = self.known.values().map(|occupant| occupant.turn).collect();
            turns.sort_unstable();
            let oldest = turns.get(turns.len() - MOST).copied().unwrap_or(0);
            self.known.retain(|_, occupant| occupant.turn >= oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u8) -> DirPlace {
        DirPlace::from_bytes([number; 16])
    }

    fn dir(number: u8) -> DirId {
        DirId::from_bytes([number; 16])
    }

    #[test]
    fn what_changed_while_the_vault_was_synced_is_not_saved() {
        let known = Occupants::default();
        for number in 1..=4 {
            known.learn(place(number), dir(number));
        }
        let then = known.take_unsaved().unwrap();
        known.leave(place(1), dir(1));
        known.leave(place(2), dir(2));
        known.learn(place(2), dir(2));
        known.learn(place(3), dir(9));
        let saved = known.still(&then);
        assert_eq!(saved, [AnchoredPlace { place: place(4), directory: dir(4) }]);
        let then = known.take_unsaved().unwrap();
        let saved: Vec<_> = known.still(&then).iter().map(|at| at.directory).collect();
        assert_eq!(saved, [dir(4), dir(2), dir(9)], "oldest first");
        assert!(known.take_unsaved().is_none());
    }

    #[test]
    fn a_place_is_left_by_the_directory_that_it_belongs_to() {
        let known = Occupants::default();
        known.learn(place(1), dir(1));
        known.leave(place(1), dir(2));
        assert!(known.is_anothers(place(1), dir(2)) && !known.is_anothers(place(1), dir(1)));
        // It may be an older copy of it that was found: where it was is still its own.
        known.learn(place(2), dir(1));
        assert!(known.is_anothers(place(1), dir(2)) && known.is_anothers(place(2), dir(2)));
        known.forget();
        assert!(!known.is_anothers(place(1), dir(2)));
    }
}
