//! The change times that a mount shows: header updates (re-wrap, seal) are not changes of a file.
//!
//! The kernel sets the backing ctime on every write, so the volume remembers, for inodes whose last
//! change was of this kind, which ctime to show as long as the backing one is still what that
//! change left. The list is a hint: losing it makes a backup tool read a file again, no more.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::fstat;
use rustix::io::Errno;

use super::backing::{Backing, BackingFile, Durability};
use super::clock::ctime;
use super::lender::{self, Overlooked};
use crate::envelope::ShownTime;

/// Which ctime to show for which inode.
#[derive(Debug)]
pub struct ShownTimes {
    inner: Mutex<Inner>,
    /// Held while the times of an inode are changed, or put back; lock order: before `inner`.
    turns: [Mutex<()>; TURNS],
}

const TURNS: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    times: HashMap<u64, Shown>,
    /// Records that are not saved yet.
    unsaved: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    backing: i64,
    shown: i64,
}

impl Default for ShownTimes {
    fn default() -> Self {
        Self::new(Inner::default())
    }
}

impl ShownTimes {
    fn new(inner: Inner) -> Self {
        Self { inner: Mutex::new(inner), turns: std::array::from_fn(|_| Mutex::default()) }
    }

    /// Keeps the times of an inode still: for whoever sets attributes, so that a header update at
    /// the same moment does not put the old ones back.
    pub(super) fn hold(&self, ino: u64) -> MutexGuard<'_, ()> {
        let at = usize::try_from(ino % TURNS as u64).unwrap_or(0);
        let turn = self.turns.get(at).unwrap_or(&self.turns[0]);
        turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list that these saved bytes hold; damaged records are left out.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let known = ShownTime::parse_all(bytes)
            .map(|ShownTime { ino, backing, shown }| (ino, Shown { backing, shown }));
        let mut times: HashMap<u64, Shown> = known.collect();
        // The same time as on the disk: nothing is to be shown for it any more.
        times.retain(|_, known| known.shown != known.backing);
        Self::new(Inner { times, unsaved: Vec::new() })
    }

    /// The records to append to the saved list: a later one counts.
    pub(super) fn take_unsaved(&self) -> Vec<u8> {
        self.overlook_loans();
        std::mem::take(&mut self.lock().unsaved)
    }

    /// The whole list, for when the saved one has grown past its use.
    pub(super) fn all(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (ino, shown) in &self.lock().times {
            shown.append_to(*ino, &mut bytes);
        }
        bytes
    }

    /// The ctime to show for an inode whose backing ctime is `backing`; both in nanoseconds.
    pub fn shown(&self, ino: u64, backing: i64) -> i64 {
        self.overlook_loans();
        let mut inner = self.lock();
        match inner.times.get(&ino) {
            None => backing,
            Some(known) if known.backing == backing => known.shown,
            Some(_) => {
                // The file was really changed since: the entry is of no use any more.
                inner.remove(ino);
                backing
            }
        }
    }

    /// The inode is gone: a record without a time of its own says so in the saved list.
    pub(super) fn remove(&self, ino: u64) {
        self.lock().remove(ino);
    }

    /// Modes that were lent and put back are no changes of the files.
    fn overlook_loans(&self) {
        for Overlooked { ino, before, at, now } in lender::take_overlooked() {
            let mut inner = self.lock();
            let shown = match inner.times.get(&ino) {
                Some(known) if known.backing == now => continue,
                Some(known) if known.backing == before || known.backing == at => known.shown,
                _ => before,
            };
            let entry = Shown { backing: now, shown };
            inner.times.insert(ino, entry);
            entry.append_to(ino, &mut inner.unsaved);
        }
    }

    /// Runs `change` on an inode and keeps the ctime that was shown before it.
    pub(super) fn keep(
        &self,
        fd: BorrowedFd<'_>,
        ino: u64,
        change: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let _turn = self.hold(ino);
        let shown = self.shown(ino, ctime(&fstat(fd)?));
        change()?;
        // What was lent for the change is overtaken by what follows.
        self.overlook_loans();
        let after = fstat(fd)?;
        let entry = Shown { backing: ctime(&after), shown };
        let mut inner = self.lock();
        if after.st_nlink == 0 {
            // A file without a name is seen by no backup tool, and its number may be used again.
            inner.remove(ino);
            return Ok(());
        }
        inner.times.insert(ino, entry);
        entry.append_to(ino, &mut inner.unsaved);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, ino: u64) {
        if let Some(known) = self.times.remove(&ino) {
            let gone = Shown { shown: known.backing, ..known };
            gone.append_to(ino, &mut self.unsaved);
        }
    }
}

impl Shown {
    fn append_to(self, ino: u64, bytes: &mut Vec<u8>) {
        let Self { backing, shown } = self;
        bytes.extend(ShownTime { ino, backing, shown }.encode());
    }
}

/// A backing file whose header updates leave the shown times as they are.
pub(super) struct TimedFile {
    file: BackingFile,
    ino: u64,
    times: Arc<ShownTimes>,
}

impl TimedFile {
    pub(super) fn new(file: BackingFile, ino: u64, times: Arc<ShownTimes>) -> Self {
        Self { file, ino, times }
    }
}

impl AsFd for TimedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

type Outcome<T> = Result<T, Errno>;

impl Backing for TimedFile {
    fn length(&self) -> Outcome<u64> {
        self.file.length()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Outcome<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Outcome<usize> {
        self.file.write_at(buf, offset)
    }
    fn set_length(&self, length: u64) -> Outcome<()> {
        self.file.set_length(length)
    }
    fn sync(&self, what: Durability) -> Outcome<()> {
        self.file.sync(what)
    }
    fn settle(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.settle(offset, length)
    }
    fn forget(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.forget(offset, length)
    }
    fn punch(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.punch(offset, length)
    }
    fn reserve(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.reserve(offset, length)
    }
    fn next_data(&self, offset: u64) -> Outcome<Option<u64>> {
        self.file.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> Outcome<u64> {
        self.file.next_hole(offset)
    }
    fn keep_times(&self, change: &mut dyn FnMut() -> Outcome<()>) -> Outcome<()> {
        self.times.keep(self.file.as_fd(), self.ino, || self.file.keep_times(change))
    }

    fn mtime(&self) -> Outcome<i64> {
        self.file.mtime()
    }

    fn ctime(&self) -> Outcome<i64> {
        self.file.ctime()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: usize = ShownTime::LEN;

    #[test]
    fn the_saved_list_reads_back_and_damage_costs_one_record() {
        let file = tempfile();
        let times = ShownTimes::default();
        let before = ctime(&fstat(&file).unwrap());
        times.keep(file.as_fd(), 7, || rustix::fs::ftruncate(&file, 5)).unwrap();
        times.keep(file.as_fd(), 8, || rustix::fs::ftruncate(&file, 6)).unwrap();
        let after = ctime(&fstat(&file).unwrap());
        let mut saved = times.take_unsaved();
        assert!(times.take_unsaved().is_empty());
        assert_eq!(ShownTimes::parse(&times.all()).all().len(), 2 * RECORD);
        assert!(times.shown(8, after) >= before);
        assert_eq!(times.shown(9, 42), 42);
        saved[3] ^= 1;
        assert_eq!(ShownTimes::parse(&saved).all().len(), RECORD);
        std::fs::remove_file(tempname()).unwrap();
        times.keep(file.as_fd(), 8, || rustix::fs::ftruncate(&file, 7)).unwrap();
        assert_eq!(times.all().len(), RECORD, "a file without a name is forgotten");
    }

    #[test]
    fn a_removed_file_leaves_nothing_behind() {
        let times = ShownTimes::default();
        for ino in [7, 8] {
            let shown = Shown { backing: 10, shown: 5 };
            times.lock().times.insert(ino, shown);
            shown.append_to(ino, &mut times.lock().unsaved);
        }
        times.remove(7);
        times.remove(9);
        assert_eq!(times.shown(7, 10), 10);
        assert_eq!(times.all().len(), RECORD);
        let read_back = ShownTimes::parse(&times.take_unsaved());
        assert_eq!((read_back.shown(7, 10), read_back.shown(8, 10)), (10, 5));
        assert_eq!(read_back.all().len(), RECORD);
    }

    #[test]
    fn a_real_change_ends_what_was_remembered() {
        let times = ShownTimes::default();
        times.lock().times.insert(1, Shown { backing: 10, shown: 5 });
        assert_eq!(times.shown(1, 10), 5);
        assert_eq!(times.shown(1, 11), 11);
        assert_eq!(times.shown(1, 10), 10);
    }

    fn tempname() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("kmsfs-times-{}", std::process::id()))
    }

    fn tempfile() -> std::os::fd::OwnedFd {
        std::fs::File::create(tempname()).unwrap().into()
    }
}
