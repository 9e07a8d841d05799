//! Decrypted spill pages in memory: bounded over all files, and shared fairly between them.
//!
//! Every page in memory has a [`Seat`]. When all are taken, whoever needs one gets the seat of a
//! page that was not used for a whole round, whichever file it belongs to (a clock over all files),
//! so that a large file that lies idle does not keep the others from having pages. What is known of
//! a group besides its page, its [`Roles`], stays with its file.
//!
//! Locks: a file's [`Spills`], then the seats. Pages of another file are taken only if its lock is
//! free at that moment, so no order between two files is needed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::envelope::SpillPage;
use crate::envelope::layout::{Copy2, Group};

/// Pages kept in memory over all files: 4 KiB each.
const SEATS: usize = 4096;

pub(super) type Groups = HashMap<Group, GroupState>;

/// What one file has of its groups in memory.
#[derive(Debug, Default)]
pub(super) struct Spills(Mutex<Groups>);

/// A group's spill page: what it says, and which copy of it a crash leaves.
#[derive(Debug)]
pub(super) struct GroupState {
    /// The decrypted page; dropped when another page needs the seat, read again when needed.
    pub(super) page: Option<Cached>,
    pub(super) roles: Roles,
    /// The page was used since the clock came by.
    pub(super) used: bool,
    /// A change of the page is under way: memory is ahead of what was written.
    pub(super) changing: bool,
}

/// What each copy of a group's page is for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Roles {
    /// The last number that was given to a page of the group.
    pub(super) sequence: u64,
    /// The copy that the last sync made durable: never written before another one is (R2a).
    pub(super) durable: Option<Copy2>,
    /// The copy written since the last sync.
    pub(super) written: Option<Copy2>,
    /// The `Marks::generation` of the last update.
    pub(super) updated: u64,
    /// The disk may have something else than was last decided: the page is written before the
    /// next sync counts.
    pub(super) owed: bool,
}

/// A page and its seat.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) page: SpillPage,
    pub(super) seat: Seat,
}

/// The right to keep one page in memory; given back on drop.
#[derive(Debug)]
pub(super) struct Seat {
    cache: Arc<SpillCache>,
    number: usize,
}

/// The seats of all files of a volume.
#[derive(Debug)]
pub(super) struct SpillCache {
    limit: usize,
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    taken: Vec<Option<Occupant>>,
    free: Vec<usize>,
    hand: usize,
}

#[derive(Debug)]
struct Occupant {
    spills: Weak<Spills>,
    group: Group,
}

impl Default for SpillCache {
    fn default() -> Self {
        Self::of(SEATS)
    }
}

impl SpillCache {
    /// A cache of `limit` pages, and of one page at least.
    pub(super) fn of(limit: usize) -> Self {
        Self { limit: limit.max(1), seats: Mutex::default() }
    }

    /// A seat for the page of `group`, a group of the file `own`. Where every page is in use, there
    /// is one seat more for a while.
    ///
    /// Locks: the caller holds those of `own`, which are `groups`.
    pub(super) fn seat(
        self: &Arc<Self>,
        group: Group,
        own: &Arc<Spills>,
        groups: &mut Groups,
    ) -> Seat {
        // Dropped when the seats are free again: each may be the last of its kind, and its drop
        // gives seats back.
        let (mut emptied, mut looked_at) = (Vec::new(), Vec::new());
        let mut seats = self.lock();
        while seats.in_use() >= self.limit + emptied.len() {
            match seats.empty_one(own, groups, &mut looked_at) {
                Some(cached) => emptied.push(cached),
                None => break,
            }
        }
        let occupant = Occupant { spills: Arc::downgrade(own), group };
        match emptied.pop() {
            Some(Cached { seat, .. }) => {
                seats.occupy(seat.number, occupant);
                seat
            }
            None => Seat { cache: Arc::clone(self), number: seats.take(occupant) },
        }
    }

    /// How many pages are in memory.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.lock().in_use()
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    fn in_use(&self) -> usize {
        self.taken.len() - self.free.len()
    }

    fn take(&mut self, occupant: Occupant) -> usize {
        if let Some(number) = self.free.pop() {
            self.occupy(number, occupant);
            return number;
        }
        self.taken.push(Some(occupant));
        self.taken.len() - 1
    }

    fn occupy(&mut self, number: usize, occupant: Occupant) {
        if let Some(seat) = self.taken.get_mut(number) {
            *seat = Some(occupant);
        }
    }

    /// Takes the next page that nobody used for a round. Two rounds at most: the first one may only
    /// note what is used.
    fn empty_one(
        &mut self,
        own: &Arc<Spills>,
        groups: &mut Groups,
        looked_at: &mut Vec<Arc<Spills>>,
    ) -> Option<Cached> {
        for _ in 0..2 * self.taken.len() {
            self.hand = (self.hand + 1) % self.taken.len();
            let Some(occupant) = self.taken.get(self.hand).and_then(Option::as_ref) else {
                continue;
            };
            let group = occupant.group;
            let emptied = if std::ptr::eq(occupant.spills.as_ptr(), Arc::as_ptr(own)) {
                empty(groups, group)
            } else if let Some(other) = occupant.spills.upgrade() {
                let emptied =
                    other.0.try_lock().ok().and_then(|mut groups| empty(&mut groups, group));
                looked_at.push(other);
                emptied
            } else {
                None
            };
            if emptied.is_some() {
                return emptied;
            }
        }
        None
    }
}

/// Takes a group's page out of memory, unless it is used or memory is ahead of the disk.
fn empty(groups: &mut Groups, group: Group) -> Option<Cached> {
    let state = groups.get_mut(&group)?;
    if std::mem::take(&mut state.used) || state.changing || state.roles.owed {
        return None;
    }
    let cached = state.page.take();
    if state.roles.is_forgettable() {
        groups.remove(&group);
    }
    cached
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.cache.lock();
        if let Some(seat) = seats.taken.get_mut(self.number) {
            *seat = None;
        }
        seats.free.push(self.number);
    }
}

impl Spills {
    pub(super) fn lock(&self) -> MutexGuard<'_, Groups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Roles {
    /// True if the disk says all that is known of the group. A group whose pages were cut off is
    /// remembered for its number.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.owed && self.written.is_none() && (self.durable.is_some() || self.sequence == 0)
    }

    /// True if neither copy is in the file.
    pub(super) fn is_absent(&self) -> bool {
        self.current().is_none()
    }

    /// The copy that counts while the file is open.
    pub(super) fn current(&self) -> Option<Copy2> {
        self.written.or(self.durable)
    }

    /// Where an update goes: where the last one since the sync went, else not to the durable copy.
    pub(super) fn target(&self) -> Copy2 {
        self.written.or(self.durable.map(Copy2::other)).unwrap_or(Copy2::First)
    }

    /// The copy written last is durable now.
    pub(super) fn flip(&mut self) -> bool {
        let Some(copy) = self.written.take() else { return false };
        self.durable = Some(copy);
        true
    }
}
