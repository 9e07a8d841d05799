//! What is known of each file that is open, or was: plain state under the lock of
//! [`super::open_files::OpenFiles`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Stat, fstat};

use super::file::File;
use crate::id::KeyId;
use crate::volume::content::Marks;
use crate::volume::model::slack::give_room_back;
use crate::volume::namespace::inode::InodeTable;
use crate::volume::session::times::Times;

/// How long a file idles.
const IDLE_FOR: Duration = Duration::from_secs(5);

pub(super) struct Table {
    pub(super) open: HashMap<u64, Slot>,
    /// What is written but not synced of files that nobody has open.
    pub(super) parked: HashMap<u64, Box<Marks>>,
    /// Knows of which closed files the kernel may have cached pages, and under which key. A file that is
    /// open knows better.
    pub(super) inodes: Arc<InodeTable>,
    /// The files that idle, by when they were closed, and how many may.
    idle: BTreeMap<u64, u64>,
    room: usize,
    pub(super) closes: u64,
    /// So many of `parked` are left of a sync of all: they wait for something else.
    pub(super) stuck: usize,
}

/// A file that is open.
pub(super) struct Slot {
    pub(super) file: Arc<File>,
    handles: usize,
    /// It may idle.
    idles: bool,
    idle: Option<Idle>,
}

struct Idle {
    state: FoundState,
    since: Instant,
    close: u64,
}

/// What a backing file looks like: another state shows that somebody else has changed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FoundState {
    times: Times,
    size: i64,
}

impl FoundState {
    /// As it is now; `None` for a file that has lost its last name.
    pub(super) fn of(file: &File) -> Option<Self> {
        fstat(file.backing_fd()).ok().as_ref().and_then(Self::new)
    }

    pub(super) fn new(stat: &Stat) -> Option<Self> {
        (stat.st_nlink > 0).then(|| Self { times: Times::of(stat), size: stat.st_size })
    }
}

impl Slot {
    /// A file with its first handle.
    pub(super) fn new(file: Arc<File>, idles: bool) -> Self {
        Self { file, handles: 1, idles, idle: None }
    }

    /// How an idle file was left.
    pub(super) fn idle_state(&self) -> Option<&FoundState> {
        self.idle.as_ref().map(|idle| &idle.state)
    }
}

impl Table {
    /// An empty one, in which so many files may idle.
    pub(super) fn with_room(room: usize, inodes: Arc<InodeTable>) -> Self {
        let (open, parked, idle) = Default::default();
        Self { open, parked, inodes, idle, room, closes: 0, stuck: 0 }
    }

    /// Takes in a file that was just opened. Never beside another one of its inode: what is known of the
    /// contents would be known twice, and either would write over the other's. Locks: the caller has the
    /// inode's turn.
    pub(super) fn add(&mut self, ino: u64, slot: Slot) {
        let before = self.open.insert(ino, slot);
        debug_assert!(before.is_none(), "an inode is open once");
    }

    /// Counts another handle of an open file.
    pub(super) fn take(&mut self, ino: u64) -> Option<Arc<File>> {
        let slot = self.open.get_mut(&ino)?;
        slot.handles += 1;
        if let Some(idle) = slot.idle.take() {
            self.idle.remove(&idle.close);
        }
        Some(slot.file.clone())
    }

    /// The file that may idle once one more handle is given back.
    pub(super) fn last_to_idle(&self, ino: u64) -> Option<Arc<File>> {
        let slot = self.open.get(&ino)?;
        (slot.idles && self.room > 0 && slot.handles == 1 && slot.file.key().is_some())
            .then(|| slot.file.clone())
    }

    /// Takes the last handle of an open file back, which idles from `now` on. Locks: the caller has the
    /// inode's turn.
    pub(super) fn let_idle(&mut self, ino: u64, state: FoundState, now: Instant) {
        match self.open.get_mut(&ino) {
            // Its last name went meanwhile.
            Some(slot) if !slot.idles => self.give_back(ino),
            Some(slot) => {
                self.closes += 1;
                slot.handles = slot.handles.saturating_sub(1);
                slot.idle = Some(Idle { state, since: now, close: self.closes });
                self.idle.insert(self.closes, ino);
            }
            None => {}
        }
    }

    /// Takes one handle of an open file back, and closes it after the last. Locks: the caller has the
    /// inode's turn.
    pub(super) fn give_back(&mut self, ino: u64) {
        self.closes += 1;
        if let Some(slot) = self.open.get_mut(&ino) {
            slot.handles = slot.handles.saturating_sub(1);
        }
        self.close(ino);
    }

    /// Closes a file that has no handle. Locks: the caller has the inode's turn.
    pub(super) fn close(&mut self, ino: u64) {
        if self.open.get(&ino).is_none_or(|slot| slot.handles > 0) {
            return;
        }
        let Some(slot) = self.take_out(ino) else { return };
        self.inodes.correct_pages(ino, slot.file.key());
        let idles = slot.idles;
        match Arc::try_unwrap(slot.file) {
            Ok(file) => {
                // Nothing is kept of a file without a name: a new one may get its number.
                let stat = fstat(file.backing_fd());
                let nameless = stat.is_ok_and(|stat| stat.st_nlink == 0);
                match file.into_marks().filter(|_| !nameless) {
                    Some(marks) => drop(self.parked.insert(ino, Box::new(marks))),
                    None => self.unpark(ino),
                }
            }
            // Somebody still looks at it: it stays in the table until the next sweep.
            Err(file) => {
                self.open.insert(ino, Slot { file, handles: 0, idles, idle: None });
            }
        }
    }

    /// The same for one that idles. If somebody still looks at it, it stays, and is the only one of its
    /// inode that may be used: gives back its key then. Locks: the caller has the inode's turn.
    pub(super) fn close_unless_held(&mut self, ino: u64) -> Option<KeyId> {
        self.close(ino);
        self.open.get(&ino).and_then(|slot| slot.file.key())
    }

    /// The last name of a file is gone: it idles no more. Gives back the one that does.
    pub(super) fn remove_nameless(&mut self, ino: u64) -> Option<Slot> {
        self.unpark(ino);
        let slot = self.open.get_mut(&ino)?;
        slot.idles = false;
        let idle = slot.idle.take()?;
        self.idle.remove(&idle.close);
        // Whoever looks at it has the only one of its inode: that stays until the next sweep.
        if Arc::strong_count(&slot.file) == 1 { self.take_out(ino) } else { None }
    }

    /// Nothing of a closed file is to be synced any more.
    pub(super) fn unpark(&mut self, ino: u64) {
        if self.parked.remove(&ino).is_some() {
            give_room_back(&mut self.parked);
        }
    }

    /// True if more than `most` files have come to wait for a sync since one of all of them.
    pub(super) fn is_crowded(&mut self, most: usize) -> bool {
        self.stuck = self.stuck.min(self.parked.len());
        self.parked.len() - self.stuck > most
    }

    /// A file that idles though too many do: the one that was closed first.
    pub(super) fn surplus(&self) -> Option<u64> {
        self.idle.first_key_value().filter(|_| self.idle.len() > self.room).map(|(_, ino)| *ino)
    }

    /// The files without handles that are to be closed at `now`.
    pub(super) fn due(&self, now: Instant) -> Vec<u64> {
        let is_due = |slot: &Slot| {
            let idle = slot.idle.as_ref();
            slot.handles == 0 && idle.is_none_or(|idle| now.duration_since(idle.since) >= IDLE_FOR)
        };
        self.open.iter().filter(|(_, slot)| is_due(slot)).map(|(ino, _)| *ino).collect()
    }

    /// All files that idle.
    pub(super) fn all_idle(&self) -> Vec<u64> {
        self.idle.values().copied().collect()
    }

    fn take_out(&mut self, ino: u64) -> Option<Slot> {
        let slot = self.open.remove(&ino)?;
        if let Some(idle) = &slot.idle {
            self.idle.remove(&idle.close);
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files whose keys were revoked, or whose disk fails, were synced five times a second.
    #[test]
    fn regression_files_that_no_sync_helps_do_not_crowd() {
        let mut table = Table::with_room(0, Arc::new(InodeTable::new(1)));
        let park = |table: &mut Table, inodes: std::ops::Range<u64>| {
            inodes.for_each(|ino| drop(table.parked.insert(ino, Box::default())));
        };
        park(&mut table, 0..10);
        assert!(!table.is_crowded(10));
        park(&mut table, 10..11);
        assert!(table.is_crowded(10));
        table.stuck = table.parked.len();
        assert!(!table.is_crowded(10));
        park(&mut table, 11..22);
        assert!(table.is_crowded(10));
        (0..11).for_each(|ino| table.unpark(ino));
        assert!(!table.is_crowded(10), "none is left of those from before");
        park(&mut table, 22..33);
        assert!(table.is_crowded(10));
    }
}
