//! The times that a mount shows: header updates (re-wrap, seal) are not changes of a file.
//!
//! The kernel sets the backing ctime on every write, and a re-wrap moves the backing mtime so that
//! backups of the vault take the file along. So the volume remembers which times to show for inodes
//! whose last change was of this kind. Each of the two times counts as long as the backing time is what
//! that change left. The list is a hint: losing it makes a backup tool read a file again, no more.
//!
//! The mtime that a re-wrap gives is known before: what to show then is planned, and the plan is durable
//! before the time moves. So a crash finds either time with a record of its own.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
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
    /// Held while the times of an inode are changed, or put back; lock order: before `inner`.
    turns: ByInode<Mutex<()>>,
}

const TURNS: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    times: HashMap<u64, Known>,
    /// Records that are not saved yet.
    unsaved: Vec<ShownTime>,
}

/// What is known of an inode.
#[derive(Debug, Clone, Copy)]
struct Known {
    record: ShownTime,
    /// What to show once a re-wrap has moved the mtime.
    planned: Kept,
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
        inner.times.retain(|_, known| known.records().next().is_some());
        Self { key, inner: Mutex::new(inner), turns: ByInode::new(TURNS) }
    }

    /// Keeps the times, mode and file capabilities of an inode still: for whoever sets them, so that a
    /// header update at the same moment does not put the old ones back.
    pub(in crate::volume) fn hold(&self, ino: u64) -> MutexGuard<'_, ()> {
        self.turns.of(ino).lock()
    }

    /// The records to append to the saved list: a later one counts.
    pub(in crate::volume) fn take_unsaved(&self) -> Vec<u8> {
        self.overlook_loans();
        let unsaved = std::mem::take(&mut self.lock().unsaved);
        unsaved.into_iter().flat_map(|record| record.encode(&self.key)).collect()
    }

    /// The whole list, for when the saved one has grown past its use.
    pub(in crate::volume) fn all(&self) -> Vec<u8> {
        let inner = self.lock();
        let records = inner.times.values().flat_map(|known| known.records());
        records.flat_map(|record| record.encode(&self.key)).collect()
    }

    /// How long the whole list is, without plans.
    pub(in crate::volume) fn saved_len(&self) -> usize {
        self.lock().times.len() * ShownTime::LEN
    }

    /// The times to show for an inode that has these.
    pub(in crate::volume) fn shown(&self, ino: u64, backing: Times) -> Times {
        self.overlook_loans();
        let mut inner = self.lock();
        let Some(known) = inner.times.get(&ino).copied() else { return backing };
        // The file was really changed since, so the entry is of no use any more. Whoever looked before
        // the entry was made cannot tell.
        if !known.is_about(backing) && backing.ctime > known.record.ctime.backing {
            inner.remove(ino);
        }
        known.shown(backing)
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
            let planned = Kept::new(mtime.saturating_add(MTIME_STEP), shown);
            self.lock().plan(ino, planned, now);
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

    /// The inode is gone, or a user changes its contents or its mtime: an empty record says so in the
    /// saved list.
    pub(in crate::volume) fn remove(&self, ino: u64) {
        self.lock().remove(ino);
    }

    /// Takes modes that were lent and put back for no changes of the files.
    fn overlook_loans(&self) {
        for Overlooked { ino, before, at, now } in lender::take_overlooked() {
            let mut inner = self.lock();
            let known = inner.known(ino);
            let shown = match known.record.ctime {
                ctime if ctime.holds(now) => continue,
                ctime if ctime.holds(before) || ctime.holds(at) => ctime.shown,
                _ => before,
            };
            inner.put(ShownTime { ctime: Kept::new(now, shown), ..known.record }, known.planned);
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
            inner.remove(ino);
            return Ok(());
        }
        let mtime = match FileType::from_raw_mode(after.st_mode) {
            FileType::RegularFile => Kept::new(now.mtime, shown.mtime),
            _ => Kept::NONE,
        };
        let planned = inner.known(ino).planned_from(now.mtime);
        inner.put(ShownTime { ino, ctime: Kept::new(now.ctime, shown.ctime), mtime }, planned);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Known {
    /// What is to be saved of it.
    fn records(self) -> impl Iterator<Item = ShownTime> {
        let planned = ShownTime::planned(self.record.ino, self.planned);
        [self.record, planned].into_iter().filter(|record| record.says_anything())
    }

    /// True if it says something of an inode with these times, or will once its mtime has moved.
    fn is_about(self, backing: Times) -> bool {
        let Self { record, planned } = self;
        record.ctime.holds(backing.ctime)
            || record.mtime.holds(backing.mtime)
            || planned.holds(backing.mtime)
            || self.planned_from(backing.mtime) != Kept::NONE
    }

    /// The plan, if it is for an inode with this mtime.
    fn planned_from(self, mtime: i64) -> Kept {
        let is_next = self.planned.backing == mtime.saturating_add(MTIME_STEP);
        if is_next { self.planned } else { Kept::NONE }
    }

    fn shown(self, backing: Times) -> Times {
        let Self { record, planned } = self;
        let mtime = match record.mtime.holds(backing.mtime) {
            true => record.mtime.shown,
            false => planned.shown(backing.mtime),
        };
        Times { ctime: record.ctime.shown(backing.ctime), mtime }
    }
}

impl Inner {
    fn known(&self, ino: u64) -> Known {
        let nothing = Known { record: ShownTime::none(ino), planned: Kept::NONE };
        self.times.get(&ino).copied().unwrap_or(nothing)
    }

    /// Takes a saved record in.
    fn take(&mut self, record: ShownTime) {
        let known = match record.is_planned() {
            true => Known { planned: record.mtime, ..self.known(record.ino) },
            false => Known { record, planned: Kept::NONE },
        };
        self.times.insert(record.ino, known);
    }

    /// A record replaces all before it, so a plan that stays follows it.
    fn put(&mut self, record: ShownTime, planned: Kept) {
        self.times.insert(record.ino, Known { record, planned });
        self.unsaved.push(record);
        if planned != Kept::NONE {
            self.unsaved.push(ShownTime::planned(record.ino, planned));
        }
    }

    fn plan(&mut self, ino: u64, planned: Kept, now: Times) {
        let mut known = Known { planned, ..self.known(ino) };
        if !known.record.says_anything() {
            // Who looked before now cannot tell whether it is of use.
            known.record.ctime = Kept::new(now.ctime, now.ctime);
        }
        self.times.insert(ino, known);
        self.unsaved.push(ShownTime::planned(ino, planned));
    }

    fn remove(&mut self, ino: u64) {
        if self.times.remove(&ino).is_some() {
            self.unsaved.push(ShownTime::none(ino));
        }
    }
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

    /// Changes the permission bits, from what they are without a loan to what `change` makes of them;
    /// true if it makes something. A header update at the same moment puts no old ones back.
    pub(in crate::volume) fn change_mode(
        &self,
        change: impl FnOnce(u32) -> Option<u32>,
    ) -> Outcome<bool> {
        let _still = self.times.hold(self.ino);
        let stat = fstat(&self.file)?;
        let Some(mode) = change(lender::without_loan(&stat).0) else { return Ok(false) };
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
    fn keep(&self, change: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
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
    fn write_at(&self, buf: &[u8], offset: u64) -> Outcome<usize> {
        self.changed(self.file.write_at(buf, offset))
    }
    fn set_length(&self, length: u64) -> Outcome<()> {
        self.changed(self.file.set_length(length))
    }
    fn sync(&self, what: Durability) -> Outcome<()> {
        self.file.sync(what)
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

    /// As a re-wrap leaves it: both times moved, and the old ones are shown.
    fn moved(ino: u64) -> ShownTime {
        ShownTime { ino, ctime: Kept::new(30, 10), mtime: Kept::new(21, 20) }
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
            times.lock().put(moved(1), Kept::NONE);
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
                        timed.change_mode(|mode| Some(mode & 0o777)).unwrap();
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
        assert!(times.all().is_empty(), "it has another time: the plan will not come true");
        file.remove();
    }

    #[test]
    fn an_entry_ends_when_neither_time_holds() {
        let times = read(&[]);
        times.lock().put(moved(1), Kept::NONE);
        times.shown(1, at(40, 21));
        assert_eq!(times.all().len(), RECORD, "the mtime still holds");
        times.shown(1, at(29, 19));
        assert_eq!(times.all().len(), RECORD, "who looked before knows nothing of it");
        times.shown(1, at(41, 22));
        assert!(times.all().is_empty());
        assert_eq!(times.shown(1, at(30, 21)), at(30, 21));
        assert!(read(&times.take_unsaved()).all().is_empty());
    }

    #[test]
    fn the_time_that_is_shown_is_set_without_taking_the_backing_one_back() {
        let times = read(&[]);
        times.lock().put(moved(1), Kept::NONE);
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
        assert!(times.all().len() <= RECORD, "a file without a name is forgotten");
    }

    #[test]
    fn a_removed_file_leaves_nothing_behind() {
        let times = read(&[]);
        times.lock().put(moved(7), Kept::NONE);
        times.lock().put(moved(8), Kept::NONE);
        times.remove(7);
        times.remove(9);
        assert_eq!(times.shown(7, at(30, 21)), at(30, 21));
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

    struct TempFile(std::os::fd::OwnedFd, std::path::PathBuf);

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
