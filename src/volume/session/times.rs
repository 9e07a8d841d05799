//! The times that a mount shows: header updates (re-wrap, seal) are not changes of a file.
//!
//! The kernel sets the backing ctime on every write, and a re-wrap moves the backing mtime so that
//! backups of the vault take the file along. So the volume remembers which times to show for inodes
//! whose last change was of this kind. Each of the two times counts as long as the backing time is what
//! that change left. The list is a hint: losing it makes a backup tool read a file again, no more.
//!
//! *Crash*: of each backing mtime the list says by itself what to show for it, and what it says of one is
//! there as long as an inode on the disk may have that one. Whichever a crash leaves, the list knows it:
//!
//! - A re-wrap is about to move the mtime: the list says what to show for the next one, durably.
//! - It has moved: the next one counts, and the one before is outdated. What the list says of either stays.
//! - A user changes it: all are outdated, and the list stays as it is. If it has something to say of a time
//!   that he sets, that is taken back before, durably.
//! - A sync is done that began after that: what was outdated is taken back.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FileType, Mode, Stat, fchmod, fstat};
use rustix::io::Errno;

use crate::envelope::{Kept, ShownTime, TimesKey};
use crate::volume::backing::contents::{Backing, BackingFile, Durability, MTIME_STEP};
use crate::volume::backing::lender::{self, Overlooked};
use crate::volume::model::by_inode::ByInode;
use crate::volume::model::clock;

/// The times of an inode that header updates change; both in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) struct Times {
    /// Of the last change of anything.
    pub(in crate::volume) ctime: i64,
    /// Of the last change of the contents.
    pub(in crate::volume) mtime: i64,
}

/// Which times to show for which inode.
#[derive(Debug)]
pub(in crate::volume) struct ShownTimes {
    key: Arc<TimesKey>,
    inner: Mutex<Inner>,
    saving: Mutex<Saving>,
    /// Held while the times of an inode are changed, or put back; lock order: before `inner`.
    turns: ByInode<Mutex<()>>,
}

const TURNS: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    times: HashMap<u64, Known>,
    /// Those of `times` of which something is outdated.
    outdated: HashSet<u64>,
    /// Syncs that have begun.
    syncs: u64,
    /// Records that are not saved yet.
    unsaved: Vec<ShownTime>,
    /// Inodes and backing mtimes that were taken back, which the list on the disk may not say.
    taken_back: TakenBack,
}

#[derive(Debug, Default)]
struct TakenBack {
    unsaved: HashSet<(u64, i64)>,
    unsynced: HashSet<(u64, i64)>,
}

/// What is known of an inode.
#[derive(Debug)]
struct Known {
    ctime: Kept,
    /// Of different backing times each. Of those that count, the one that the inode has comes first, and
    /// what a re-wrap has planned last.
    mtimes: Vec<Stated>,
}

/// What to show for a backing mtime.
#[derive(Debug, Clone, Copy)]
struct Stated {
    kept: Kept,
    /// The inode has another one since this many syncs began. After a crash it may have this one again.
    outdated: Option<u64>,
}

/// A moment from which on a sync makes everything durable that was there.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct SyncBegun(u64);

/// How the saved list is.
#[derive(Debug, Default)]
pub(in crate::volume) struct Saving {
    /// Something was appended and not synced.
    pub(in crate::volume) unsynced: bool,
    /// Bytes of the list when it was last written whole.
    pub(in crate::volume) whole: usize,
    /// The list, while records are appended one after the other.
    pub(in crate::volume) list: Option<OwnedFd>,
}

impl Times {
    /// Those that the backing filesystem has.
    pub(in crate::volume) fn of(stat: &Stat) -> Self {
        Self { ctime: clock::ctime(stat), mtime: clock::mtime(stat) }
    }
}

impl ShownTimes {
    /// The list that these saved bytes hold; what is not authentic is left out.
    pub(in crate::volume) fn parse(bytes: &[u8], key: Arc<TimesKey>) -> Self {
        let mut inner = Inner::default();
        for record in ShownTime::parse_all(bytes, &key) {
            inner.take(record);
        }
        inner.times.retain(|ino, known| known.records(*ino).next().is_some());
        let (inner, saving) = (Mutex::new(inner), Mutex::default());
        Self { key, inner, saving, turns: ByInode::new(TURNS) }
    }

    /// Keeps the times, mode and file capabilities of an inode still: for whoever sets them, so that a
    /// header update at the same moment does not put the old ones back.
    pub(in crate::volume) fn hold(&self, ino: u64) -> MutexGuard<'_, ()> {
        self.turns.of(ino).lock()
    }

    /// Held while the list is saved, so that what one has taken to append is there for another that
    /// syncs it. Lock order: after the turn of an inode, before `inner`.
    pub(in crate::volume) fn saving(&self) -> MutexGuard<'_, Saving> {
        self.saving.lock()
    }

    /// The records to append to the saved list: of two about the same time, the later counts.
    pub(in crate::volume) fn take_unsaved(&self) -> Vec<u8> {
        self.overlook_loans();
        let unsaved = {
            let mut inner = self.lock();
            let TakenBack { unsaved, unsynced } = &mut inner.taken_back;
            unsynced.extend(unsaved.drain());
            std::mem::take(&mut inner.unsaved)
        };
        unsaved.into_iter().flat_map(|record| record.encode(&self.key)).collect()
    }

    /// The list is durable as it was when [`Self::take_unsaved`] gave the last of it. Locks: the caller
    /// holds [`Self::saving`] since.
    pub(in crate::volume) fn saved(&self) {
        self.lock().taken_back.unsynced = HashSet::new();
    }

    /// The whole list, for when the saved one has grown past its use.
    pub(in crate::volume) fn all(&self) -> Vec<u8> {
        let inner = self.lock();
        let records = inner.times.iter().flat_map(|(ino, known)| known.records(*ino));
        records.flat_map(|record| record.encode(&self.key)).collect()
    }

    /// How long the whole list is at least.
    pub(in crate::volume) fn saved_len(&self) -> usize {
        self.lock().times.len() * ShownTime::LEN
    }

    /// The times to show for an inode that has these.
    pub(in crate::volume) fn shown(&self, ino: u64, backing: Times) -> Times {
        self.overlook_loans();
        let mut inner = self.lock();
        let Some(known) = inner.times.get(&ino) else { return backing };
        let shown = known.shown(backing);
        // The file was really changed since, so the entry is of no use any more. Whoever looked before
        // the entry was made cannot tell.
        if !known.is_about(backing) && backing.ctime > known.ctime.backing {
            inner.changed(ino);
        }
        shown
    }

    /// Plans what to show of a file once a re-wrap has moved its backing mtime, unless that is another
    /// one than `mtime` by now. Saved durably before the time moves.
    pub(in crate::volume) fn plan(
        &self,
        fd: BorrowedFd<'_>,
        ino: u64,
        mtime: i64,
    ) -> Result<(), Errno> {
        let _turn = self.hold(ino);
        let stat = fstat(fd)?;
        let now = Times::of(&stat);
        if now.mtime == mtime && stat.st_nlink > 0 {
            let shown = self.shown(ino, now).mtime;
            self.lock().plan(ino, Kept::new(next(mtime), shown), now);
        }
        Ok(())
    }

    /// The mtime to give an inode so that `wanted` is shown, if the two differ. A user who sets the
    /// time that is shown already must not undo the time by which backups notice a re-wrap.
    pub(in crate::volume) fn mtime_behind(
        &self,
        ino: u64,
        backing: Times,
        wanted: i64,
    ) -> Option<i64> {
        let hidden = self.shown(ino, backing).mtime == wanted && backing.mtime != wanted;
        hidden.then_some(backing.mtime)
    }

    /// The inode is gone, or a user has changed its contents or its mtime.
    pub(in crate::volume) fn remove(&self, ino: u64) {
        self.lock().changed(ino);
    }

    /// Before a user sets the mtime of an inode to this one, which is to be shown. True if the list on the
    /// disk may say to show another: until it is synced, a crash may do so.
    pub(in crate::volume) fn will_be_set(&self, ino: u64, mtime: i64) -> bool {
        let mut inner = self.lock();
        inner.take_back(ino, |stated| stated.kept.backing == mtime);
        let TakenBack { unsaved, unsynced } = &inner.taken_back;
        unsaved.contains(&(ino, mtime)) || unsynced.contains(&(ino, mtime))
    }

    /// True if something is outdated that a crash may bring back.
    pub(in crate::volume) fn awaits_sync(&self) -> bool {
        !self.lock().outdated.is_empty()
    }

    /// Before a sync of the whole backing filesystem; `None` if nothing waits for one.
    pub(in crate::volume) fn begin_sync(&self) -> Option<SyncBegun> {
        let mut inner = self.lock();
        (!inner.outdated.is_empty()).then(|| inner.begin_sync())
    }

    /// The sync that began then has succeeded: no crash brings the times back that were outdated.
    pub(in crate::volume) fn synced(&self, begun: SyncBegun) {
        let mut inner = self.lock();
        for ino in std::mem::take(&mut inner.outdated) {
            inner.settle(ino, begun);
        }
    }

    /// The same of the sync of one inode, which says nothing of its names.
    fn sync_of(&self, ino: u64) -> Option<SyncBegun> {
        let mut inner = self.lock();
        inner.outdated.contains(&ino).then(|| inner.begin_sync())
    }

    /// Takes modes that were lent and put back for no changes of the files.
    fn overlook_loans(&self) {
        for Overlooked { ino, before, at, now } in lender::take_overlooked() {
            let mut inner = self.lock();
            let (known, mtime) = match inner.times.get(&ino) {
                Some(known) => (known.ctime, known.mtime()),
                None => (Kept::NONE, Kept::NONE),
            };
            let shown = match known {
                ctime if ctime.holds(now) => continue,
                ctime if ctime.holds(before) || ctime.holds(at) => ctime.shown,
                _ => before,
            };
            inner.put(ShownTime { ino, ctime: Kept::new(now, shown), mtime });
        }
    }

    /// Runs `change` on an inode and keeps the times that were shown before it; for a directory only
    /// the ctime, since names may be made in it meanwhile.
    pub(in crate::volume) fn keep(
        &self,
        fd: BorrowedFd<'_>,
        ino: u64,
        change: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let _turn = self.hold(ino);
        let shown = self.shown(ino, Times::of(&fstat(fd)?));
        change()?;
        // What follows replaces the times of modes that were lent for the change.
        self.overlook_loans();
        let after = fstat(fd)?;
        let now = Times::of(&after);
        let mut inner = self.lock();
        if after.st_nlink == 0 {
            // No backup tool sees a file without a name, and its number may be used again.
            inner.changed(ino);
            return Ok(());
        }
        let mtime = match FileType::from_raw_mode(after.st_mode) {
            FileType::RegularFile => Kept::new(now.mtime, shown.mtime),
            _ => Kept::NONE,
        };
        // It has this one, and a re-wrap may be about to move it.
        inner.outdate(ino, |backing| ![now.mtime, next(now.mtime)].contains(&backing));
        inner.put(ShownTime { ino, ctime: Kept::new(now.ctime, shown.ctime), mtime });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Known {
    const NOTHING: Self = Self { ctime: Kept::NONE, mtimes: Vec::new() };

    /// What is to be saved of it. Earlier builds take the first record and the last one.
    fn records(&self, ino: u64) -> impl Iterator<Item = ShownTime> {
        let mtime = self.mtimes.first().map_or(Kept::NONE, |stated| stated.kept);
        let beside = self.mtimes.iter().skip(1);
        let beside = beside.map(move |stated| ShownTime::planned(ino, stated.kept));
        let first = ShownTime { ino, ctime: self.ctime, mtime };
        std::iter::once(first).chain(beside).filter(|record| record.says_anything())
    }

    fn counting(&self) -> impl Iterator<Item = Kept> {
        let counting = self.mtimes.iter().filter(|stated| stated.outdated.is_none());
        counting.map(|stated| stated.kept)
    }

    /// What is said of the mtime that the inode has.
    fn mtime(&self) -> Kept {
        self.counting().next().unwrap_or(Kept::NONE)
    }

    /// True if it says something of an inode with these times, or will once its mtime has moved.
    fn is_about(&self, backing: Times) -> bool {
        let is_near = |mtime: i64| mtime == backing.mtime || mtime == next(backing.mtime);
        self.ctime.holds(backing.ctime) || self.counting().any(|kept| is_near(kept.backing))
    }

    fn shown(&self, backing: Times) -> Times {
        let mtime = self.counting().find(|kept| kept.holds(backing.mtime));
        Times {
            ctime: self.ctime.shown(backing.ctime),
            mtime: mtime.map_or(backing.mtime, |kept| kept.shown),
        }
    }

    /// Says what to show for a backing mtime from now on, in place of what was said of that one.
    fn state(&mut self, kept: Kept) -> Option<Stated> {
        self.mtimes.retain(|stated| stated.kept.backing != kept.backing);
        (kept.shown != kept.backing).then_some(Stated { kept, outdated: None })
    }
}

impl Inner {
    /// Takes a saved record in.
    fn take(&mut self, record: ShownTime) {
        if record == ShownTime::none(record.ino) {
            self.forget(record.ino);
            return;
        }
        let known = self.times.entry(record.ino).or_insert(Known::NOTHING);
        let stated = if record.mtime == Kept::NONE { None } else { known.state(record.mtime) };
        match record.is_planned() {
            true => known.mtimes.extend(stated),
            false => {
                known.ctime = record.ctime;
                known.mtimes.splice(0..0, stated);
            }
        }
        // One or two, of as many files as were ever re-wrapped.
        known.mtimes.shrink_to_fit();
    }

    fn put(&mut self, record: ShownTime) {
        self.take(record);
        self.unsaved.push(record);
    }

    fn plan(&mut self, ino: u64, planned: Kept, now: Times) {
        if planned == Kept::NONE {
            return;
        }
        self.put(ShownTime::planned(ino, planned));
        if let Some(known) = self.times.get_mut(&ino)
            && known.ctime.backing == known.ctime.shown
        {
            // Who looked before now cannot tell whether it is of use.
            known.ctime = Kept::new(now.ctime, now.ctime);
        }
    }

    /// Nothing counts of what is known of the inode. The list goes on saying what to show for times that
    /// a crash may bring back.
    fn changed(&mut self, ino: u64) {
        let Some(known) = self.times.get_mut(&ino) else { return };
        if known.mtimes.is_empty() {
            self.forget(ino);
            self.unsaved.push(ShownTime::none(ino));
            return;
        }
        known.ctime = Kept::NONE;
        self.outdate(ino, |_| true);
    }

    /// Backing mtimes that the inode has no more, and that a crash may bring back.
    fn outdate(&mut self, ino: u64, is_over: impl Fn(i64) -> bool) {
        let Some(known) = self.times.get_mut(&ino) else { return };
        for stated in known.mtimes.iter_mut().filter(|stated| is_over(stated.kept.backing)) {
            stated.outdated.get_or_insert(self.syncs);
            self.outdated.insert(ino);
        }
    }

    fn begin_sync(&mut self) -> SyncBegun {
        self.syncs += 1;
        SyncBegun(self.syncs)
    }

    /// Forgets what was outdated when the sync began.
    fn settle(&mut self, ino: u64, begun: SyncBegun) {
        self.take_back(ino, |stated| stated.outdated.is_some_and(|since| since < begun.0));
    }

    /// Takes back what is said of some backing mtimes, here and in the list.
    fn take_back(&mut self, ino: u64, is_over: impl Fn(&Stated) -> bool) {
        let Some(known) = self.times.get_mut(&ino) else { return };
        let (over, rest): (Vec<_>, Vec<_>) = known.mtimes.drain(..).partition(is_over);
        known.mtimes = rest;
        if !known.mtimes.iter().any(|stated| stated.outdated.is_some()) {
            self.outdated.remove(&ino);
        } else {
            self.outdated.insert(ino);
        }
        if over.is_empty() {
            return;
        }
        self.taken_back.unsaved.extend(over.iter().map(|stated| (ino, stated.kept.backing)));
        if known.records(ino).next().is_none() {
            self.forget(ino);
            self.unsaved.push(ShownTime::none(ino));
            return;
        }
        let as_they_are =
            over.iter().map(|stated| Kept::new(stated.kept.backing, stated.kept.backing));
        // A record of zeros would take everything back.
        let as_they_are = as_they_are.filter(|kept| *kept != Kept::NONE);
        self.unsaved.extend(as_they_are.map(|kept| ShownTime::planned(ino, kept)));
    }

    fn forget(&mut self, ino: u64) {
        self.times.remove(&ino);
        self.outdated.remove(&ino);
    }
}

/// The mtime that a re-wrap gives an inode with this one.
fn next(mtime: i64) -> i64 {
    mtime.saturating_add(MTIME_STEP)
}

/// A backing file whose header updates leave the shown times as they are.
pub(in crate::volume) struct TimedFile {
    file: BackingFile,
    ino: u64,
    times: Arc<ShownTimes>,
    /// The mtime that is shown may not be the one of the file.
    is_kept: AtomicBool,
}

impl TimedFile {
    pub(in crate::volume) fn new(file: BackingFile, ino: u64, times: Arc<ShownTimes>) -> Self {
        Self { file, ino, times, is_kept: AtomicBool::new(true) }
    }

    /// Changes the permission bits, from what they are without a loan to what `change` makes of them and
    /// of the group; true if it makes something. A header update at the same moment puts no old ones back.
    pub(in crate::volume) fn change_mode(
        &self,
        change: impl FnOnce(u32, u32) -> Option<u32>,
    ) -> Outcome<bool> {
        let _still = self.times.hold(self.ino);
        let stat = fstat(&self.file)?;
        let (mode, _) = lender::without_loan(&stat);
        let Some(mode) = change(mode, stat.st_gid) else { return Ok(false) };
        lender::change_mode(&stat, || fchmod(&self.file, Mode::from_raw_mode(mode)))?;
        Ok(true)
    }

    /// The contents were changed: from here on the mtime is the file's own, even if a coarse clock
    /// gives it the time again that a re-wrap left.
    fn changed<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if outcome.is_ok() && self.is_kept.swap(false, Ordering::AcqRel) {
            self.times.remove(self.ino);
        }
        outcome
    }

    /// Runs a change that is not the user's, and does not end the times that are shown.
    pub(in crate::volume) fn keep(&self, change: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
        self.is_kept.store(false, Ordering::Release);
        let kept = self.times.keep(self.file.as_fd(), self.ino, change);
        self.is_kept.store(true, Ordering::Release);
        kept
    }
}

impl AsFd for TimedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

type Outcome<T> = Result<T, Errno>;

impl Backing for TimedFile {
    fn number(&self) -> u64 {
        self.file.number()
    }
    fn length(&self) -> Outcome<u64> {
        self.file.length()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Outcome<usize> {
        self.file.read_at(buf, offset)
    }
    fn will_read(&self, offset: u64, length: u64) {
        self.file.will_read(offset, length);
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Outcome<usize> {
        self.changed(self.file.write_at(buf, offset))
    }
    fn set_length(&self, length: u64) -> Outcome<()> {
        self.changed(self.file.set_length(length))
    }
    fn sync(&self, what: Durability) -> Outcome<()> {
        let begun = match what {
            Durability::Everything => self.times.sync_of(self.ino),
            Durability::Contents => None,
        };
        self.file.sync(what)?;
        if let Some(begun) = begun
            // Else the inode may come back with its name, as it was before.
            && fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 0)
        {
            self.times.lock().settle(self.ino, begun);
        }
        Ok(())
    }
    fn write_back(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.write_back(offset, length)
    }
    fn forget(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.forget(offset, length)
    }
    fn punch(&self, offset: u64, length: u64) -> Outcome<()> {
        self.changed(self.file.punch(offset, length))
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
    fn drop_attributes(&self) -> Outcome<()> {
        self.file.drop_attributes()
    }
    fn keep_times(&self, change: &mut dyn FnMut() -> Outcome<()>) -> Outcome<()> {
        self.keep(|| self.file.keep_times(change))
    }

    fn move_mtime(&self) -> Outcome<()> {
        self.keep(|| self.file.move_mtime())
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
    use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, ftruncate, futimens};

    use super::*;
    use crate::crypto::secret::Secret;
    use crate::envelope::VolumeKeys;
    use crate::id::VolumeId;

    const RECORD: usize = ShownTime::LEN;
    const SECOND: i64 = 1_000_000_000;

    fn key() -> Arc<TimesKey> {
        let key = Secret::filled(|key| key.fill(5));
        VolumeKeys::new(VolumeId::from_bytes([6; 16]), &key).times_key().clone()
    }

    fn read(saved: &[u8]) -> ShownTimes {
        ShownTimes::parse(saved, key())
    }

    fn at(ctime: i64, mtime: i64) -> Times {
        Times { ctime, mtime }
    }

    /// The backing filesystem is synced.
    fn sync(times: &ShownTimes) {
        times.begin_sync().into_iter().for_each(|begun| times.synced(begun));
    }

    /// As a re-wrap leaves it: both times moved, and the old ones are shown.
    fn moved(ino: u64) -> ShownTime {
        ShownTime { ino, ctime: Kept::new(30, 10), mtime: Kept::new(21, 20) }
    }

    #[test]
    fn a_file_with_shown_times_takes_75_bytes_and_50_more_once_its_contents_have_one() {
        assert!(size_of::<(u64, Known)>() <= 48 && size_of::<Stated>() <= 32);
        let times = read(&[]);
        times.lock().put(moved(1));
        times.lock().put(ShownTime { ctime: Kept::new(30, 10), ..ShownTime::none(2) });
        let inner = times.lock();
        let room = |ino| inner.times[&ino].mtimes.capacity();
        assert_eq!((room(1), room(2)), (1, 0));
    }

    #[test]
    fn each_time_is_shown_as_long_as_the_backing_one_is_what_the_change_left() {
        let cases = [
            (at(30, 21), at(10, 20), "nothing happened since"),
            (at(40, 21), at(40, 20), "chmod"),
            (at(40, 22), at(40, 22), "a write, or a time that was set"),
            (at(40, 20), at(40, 20), "the old time was set, behind the back of the mount"),
            (at(30, 22), at(10, 22), "a ctime that did not move"),
            (at(29, 20), at(29, 20), "attributes from before the change"),
        ];
        for (backing, shown, what) in cases {
            let times = read(&[]);
            times.lock().put(moved(1));
            assert_eq!(times.shown(1, backing), shown, "{what}");
            assert_eq!(times.shown(2, backing), backing, "{what}: another inode");
            let again = read(&times.take_unsaved());
            assert_eq!(again.shown(1, backing), shown, "{what}, after a remount");
        }
    }

    /// A user's write took setuid away while a header was written, and got it back.
    #[test]
    fn regression_a_header_update_puts_no_mode_back_that_was_changed_meanwhile() {
        let (file, times) = (TempFile::new("mode"), Arc::new(read(&[])));
        fchmod(&file.0, Mode::from_raw_mode(0o4777)).unwrap();
        let timed = TimedFile::new(BackingFile::new(file.0.try_clone().unwrap()), 7, times);
        std::thread::scope(|scope| {
            let header = || {
                let (done, changed) = std::sync::mpsc::channel();
                scope.spawn({
                    let timed = &timed;
                    move || {
                        timed.change_mode(|mode, _| Some(mode & 0o777)).unwrap();
                        let _ = done.send(());
                    }
                });
                // As long as it takes, if nothing kept it from happening in between.
                let _ = changed.recv_timeout(std::time::Duration::from_millis(200));
                timed.write_at(b"header", 0).map(drop)
            };
            let mut header = Some(header);
            timed.keep_times(&mut || header.take().map_or(Ok(()), |header| header())).unwrap();
        });
        assert_eq!(fstat(&file.0).unwrap().st_mode & 0o7777, 0o777);
        file.remove();
    }

    #[test]
    fn a_plan_counts_beside_the_record_before_it_until_the_time_has_moved() {
        let (file, times) = (TempFile::new("planned"), Arc::new(read(&[])));
        file.set_mtime(1_000_000, 5);
        let first = file.times();
        let timed = TimedFile::new(BackingFile::new(file.0.try_clone().unwrap()), 7, times.clone());
        let mut saved = Vec::new();
        for count in 1..=2 {
            timed.keep_times(&mut || timed.write_at(b"header", 0).map(drop)).unwrap();
            let before = file.times();
            times.plan(file.as_fd(), 7, before.mtime).unwrap();
            saved.extend(times.take_unsaved());
            assert_eq!(times.shown(7, before), first, "{count}: planned, and looked at");
            // What a crash leaves, before the time has moved and after.
            let crashed = read(&saved);
            assert_eq!(crashed.shown(7, before), first, "{count}: not moved");
            timed.move_mtime().unwrap();
            let after = file.times();
            assert_eq!(crashed.shown(7, after).mtime, first.mtime, "{count}: moved");
            assert_eq!(read(&crashed.all()).shown(7, after).mtime, first.mtime, "{count}");
            assert_eq!(times.shown(7, after), first, "{count}");
        }
        saved.extend(times.take_unsaved());
        assert_eq!(read(&saved).all().len(), 2 * RECORD, "a crash may leave the time before it");
        sync(&times);
        saved.extend(times.take_unsaved());
        assert_eq!(read(&saved).all().len(), RECORD, "the plan is over");
        file.remove();
    }

    #[test]
    fn a_plan_is_for_one_time_and_goes_with_any_other() {
        let (file, times) = (TempFile::new("unplanned"), read(&[]));
        file.set_mtime(1_000_000, 5);
        let mtime = file.times().mtime;
        times.plan(file.as_fd(), 7, mtime - 1).unwrap();
        assert!(times.all().is_empty(), "another time by now");
        times.plan(file.as_fd(), 7, mtime).unwrap();
        // A seal meanwhile leaves the time, and the plan.
        times.keep(file.as_fd(), 7, || Ok(())).unwrap();
        let moved = at(file.times().ctime + 1, mtime + SECOND);
        assert_eq!(times.shown(7, moved).mtime, mtime);
        assert_eq!(read(&times.take_unsaved()).shown(7, moved).mtime, mtime);
        times.remove(7);
        assert_eq!(times.shown(7, moved), moved, "a user wrote");
        times.plan(file.as_fd(), 7, mtime).unwrap();
        let other = at(moved.ctime, mtime + 1);
        assert_eq!(times.shown(7, other), other);
        assert_eq!(
            times.shown(7, moved),
            moved,
            "it had another time: the plan will not come true"
        );
        sync(&times);
        assert!(times.all().is_empty());
        file.remove();
    }

    #[test]
    fn an_entry_ends_when_neither_time_holds() {
        let times = read(&[]);
        times.lock().put(moved(1));
        times.shown(1, at(40, 21));
        assert_eq!(times.all().len(), RECORD, "the mtime still holds");
        times.shown(1, at(29, 19));
        assert_eq!(times.all().len(), RECORD, "who looked before knows nothing of it");
        times.shown(1, at(41, 22));
        assert_eq!(times.all().len(), RECORD, "a crash may bring the mtime back");
        assert_eq!(times.shown(1, at(30, 21)), at(30, 21));
        sync(&times);
        assert!(times.all().is_empty());
        assert!(read(&times.take_unsaved()).all().is_empty());
    }

    #[test]
    fn the_time_that_is_shown_is_set_without_taking_the_backing_one_back() {
        let times = read(&[]);
        times.lock().put(moved(1));
        assert_eq!(times.mtime_behind(1, at(40, 21), 20), Some(21), "the one that is shown");
        assert_eq!(times.mtime_behind(1, at(40, 21), 21), None, "the one that is there");
        assert_eq!(times.mtime_behind(1, at(40, 21), 22), None, "another");
        assert_eq!(times.mtime_behind(2, at(40, 21), 20), None, "another inode");
    }

    #[test]
    fn times_too_far_away_to_be_numbers_are_shown_as_they_are() {
        for (backing, shown) in [(i64::MAX, 5), (5, i64::MAX), (i64::MIN, i64::MIN)] {
            assert_eq!(Kept::new(backing, shown).shown(backing), backing);
        }
    }

    #[test]
    fn the_saved_list_reads_back_and_damage_costs_one_record() {
        let (file, times) = (TempFile::new("saved"), read(&[]));
        let before = file.times();
        times.keep(file.as_fd(), 7, || ftruncate(&file.0, 5)).unwrap();
        times.keep(file.as_fd(), 8, || ftruncate(&file.0, 6)).unwrap();
        let after = file.times();
        let mut saved = times.take_unsaved();
        assert!(times.take_unsaved().is_empty());
        assert!(times.shown(8, after).ctime >= before.ctime);
        assert_eq!(times.shown(9, at(42, 43)), at(42, 43));
        assert_eq!(saved.len(), 2 * RECORD);
        saved[3] ^= 1;
        assert!(read(&saved).all().len() <= RECORD);
        file.remove();
        times.keep(file.as_fd(), 8, || ftruncate(&file.0, 7)).unwrap();
        sync(&times);
        assert!(times.all().len() <= RECORD, "a file without a name is forgotten");
    }

    #[test]
    fn a_removed_file_leaves_nothing_behind() {
        let times = read(&[]);
        times.lock().put(moved(7));
        times.lock().put(moved(8));
        times.remove(7);
        times.remove(9);
        assert_eq!(times.shown(7, at(30, 21)), at(30, 21));
        assert_eq!(times.all().len(), 2 * RECORD, "a crash may bring it back");
        sync(&times);
        assert_eq!(times.all().len(), RECORD);
        let read_back = read(&times.take_unsaved());
        assert_eq!(read_back.shown(7, at(30, 21)), at(30, 21));
        assert_eq!(read_back.shown(8, at(30, 21)), at(10, 20));
        assert_eq!(read_back.all().len(), RECORD);
    }

    #[test]
    fn a_marked_change_moves_the_backing_time_by_a_second_and_no_other() {
        let (file, times) = (TempFile::new("marked"), Arc::new(read(&[])));
        file.set_mtime(1_000_000, 5);
        let first = file.times();
        let timed = TimedFile::new(BackingFile::new(file.0.try_clone().unwrap()), 7, times.clone());
        let shown = |file: &TempFile| times.shown(7, file.times());
        for count in 1..=2 {
            timed.keep_times(&mut || timed.write_at(b"header", 0).map(drop)).unwrap();
            timed.move_mtime().unwrap();
            assert_eq!(file.times().mtime, first.mtime + count * SECOND);
            assert_eq!(shown(&file), first, "{count}");
            timed.keep_times(&mut || timed.write_at(b"seal", 0).map(drop)).unwrap();
            assert_eq!(file.times().mtime, first.mtime + count * SECOND);
            assert_eq!(shown(&file), first, "{count}");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        fchmod(&file.0, Mode::RUSR | Mode::WUSR | Mode::XUSR).unwrap();
        assert_eq!(shown(&file), at(file.times().ctime, first.mtime));
        let again = read(&times.take_unsaved());
        assert_eq!(again.shown(7, file.times()), shown(&file));
        // A clock that knows whole seconds only may give a write the time that the change left.
        let left = file.times().mtime;
        timed.write_at(b"contents", 0).unwrap();
        file.set_mtime(left / SECOND, left % SECOND);
        assert_eq!(shown(&file), file.times());
        file.remove();
    }

    #[test]
    fn what_is_outdated_waits_for_a_sync_that_begins_later() {
        let times = read(&[]);
        times.lock().put(moved(1));
        assert!(times.begin_sync().is_none(), "nothing waits");
        times.lock().put(moved(2));
        times.remove(2);
        let begun = times.begin_sync().unwrap();
        times.remove(1);
        times.synced(begun);
        let left = read(&times.take_unsaved());
        assert_eq!(
            left.shown(1, at(40, 21)),
            at(40, 20),
            "the power was cut, and nobody had synced"
        );
        assert_eq!(left.shown(2, at(40, 21)), at(40, 21));
        assert!(times.awaits_sync());
        sync(&times);
        assert!(!times.awaits_sync() && times.all().is_empty());
        assert_eq!(read(&times.take_unsaved()).all().len(), 0);
    }

    #[test]
    fn the_sync_of_a_file_without_a_name_says_nothing_of_the_name() {
        let (file, times) = (TempFile::new("nameless"), Arc::new(read(&[])));
        let timed = TimedFile::new(BackingFile::new(file.0.try_clone().unwrap()), 7, times.clone());
        for named in [true, false] {
            times.lock().put(moved(7));
            if !named {
                file.remove();
            }
            times.remove(7);
            timed.sync(Durability::Contents).unwrap();
            assert!(times.awaits_sync(), "it says nothing of the time");
            timed.sync(Durability::Everything).unwrap();
            assert_eq!(times.awaits_sync(), !named);
        }
    }

    /// On btrfs a cut left the list of the second re-wrap and the time of the first one; and the list
    /// after a user had set a time, and the time before that.
    #[test]
    fn regression_whatever_a_cut_leaves_of_list_and_inode_shows_a_time_that_was_shown() {
        for seed in 1..=40 {
            let mut disk = CutDisk::new(seed);
            for step in 0..60 {
                disk.act();
                disk.check(&format!("seed {seed}, step {step}"));
            }
            disk.file.remove();
        }
    }

    /// A file and its list, and what a cut may leave of either.
    struct CutDisk {
        file: TempFile,
        timed: TimedFile,
        times: Arc<ShownTimes>,
        list: Vec<u8>,
        /// Bytes of the list that are durable.
        durable: usize,
        /// Each mtime that the inode may have after a cut, and what was shown for it.
        left: Vec<(i64, i64)>,
        random: u64,
    }

    impl CutDisk {
        fn new(seed: u64) -> Self {
            let (file, times) = (TempFile::new(&format!("cut-{seed}")), Arc::new(read(&[])));
            file.set_mtime(1_000_000, 5);
            let mtime = file.times().mtime;
            let backing = BackingFile::new(file.0.try_clone().unwrap());
            let timed = TimedFile::new(backing, 7, times.clone());
            let left = vec![(mtime, mtime)];
            let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            Self { file, timed, times, list: Vec::new(), durable: 0, left, random }
        }

        fn below(&mut self, limit: u64) -> u64 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            self.random % limit
        }

        fn act(&mut self) {
            match self.below(9) {
                0..3 => self.rewrap(),
                3 => self.set_time(),
                4 => self
                    .timed
                    .keep_times(&mut || self.timed.write_at(b"seal", 0).map(drop))
                    .unwrap(),
                5 => {
                    self.timed.sync(Durability::Everything).unwrap();
                    self.left.drain(..self.left.len() - 1);
                }
                6 => {
                    let begun = self.times.begin_sync();
                    self.left.drain(..self.left.len() - 1);
                    self.durable = self.list.len();
                    begun.into_iter().for_each(|begun| self.times.synced(begun));
                }
                7 => self.append(),
                _ => {
                    self.times.take_unsaved();
                    self.list = self.times.all();
                    self.sync_list();
                }
            }
            self.note();
        }

        fn rewrap(&mut self) {
            self.timed.keep_times(&mut || self.timed.write_at(b"header", 0).map(drop)).unwrap();
            let mtime = self.file.times().mtime;
            self.times.plan(self.file.as_fd(), 7, mtime).unwrap();
            self.append();
            self.check("planned");
            self.sync_list();
            self.timed.move_mtime().unwrap();
            self.note();
            self.check("moved");
            self.append();
            self.check("the list comes first");
        }

        /// To one of those that re-wraps have left or will leave, as often as not.
        fn set_time(&mut self) {
            let seconds = i64::try_from(1_000_000 + self.below(12)).unwrap();
            let mtime = seconds * SECOND + 5;
            if self.times.will_be_set(7, mtime) {
                self.append();
                self.sync_list();
            }
            self.left.push((mtime, mtime));
            self.check("about to be set");
            self.file.set_mtime(seconds, 5);
            self.times.remove(7);
            assert_eq!(self.times.shown(7, self.file.times()).mtime, mtime);
        }

        fn sync_list(&mut self) {
            self.durable = self.list.len();
            self.times.saved();
        }

        fn append(&mut self) {
            self.list.extend(self.times.take_unsaved());
        }

        fn note(&mut self) {
            let now = self.file.times();
            let now = (now.mtime, self.times.shown(7, now).mtime);
            if self.left.last() != Some(&now) {
                self.left.push(now);
            }
        }

        fn check(&self, what: &str) {
            for end in (self.durable..=self.list.len()).step_by(RECORD) {
                for (mtime, _) in &self.left {
                    let shown = read(&self.list[..end]).shown(7, at(0, *mtime)).mtime;
                    let known = self.left.iter().any(|(_, time)| *time == shown);
                    assert!(known, "{what}: {mtime} is shown as {shown}, of {:?}", self.left);
                }
            }
        }
    }

    struct TempFile(OwnedFd, std::path::PathBuf);

    impl TempFile {
        fn new(what: &str) -> Self {
            let name = format!("kmsfs-times-{what}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            Self(std::fs::File::create(&path).unwrap().into(), path)
        }

        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn times(&self) -> Times {
            Times::of(&fstat(&self.0).unwrap())
        }

        fn set_mtime(&self, tv_sec: i64, tv_nsec: i64) {
            let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let last_modification = Timespec { tv_sec, tv_nsec };
            futimens(&self.0, &Timestamps { last_access, last_modification }).unwrap();
        }

        fn remove(&self) {
            std::fs::remove_file(&self.1).unwrap();
        }
    }
}
