//! What a re-wrap does to times: the ciphertext file's moves, and the one that is shown does not.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use kmsfs::keystore::KeyRef;
use kmsfs::volume::attr::{Attr, AttrChange, NewTime, Timestamp};
use kmsfs::volume::content::Access;
use kmsfs::volume::{Options, Origin, RewrapJob};

use crate::fixture::{Fixture, ROOT, caller};

/// A time long ago.
const OLD: Timestamp = Timestamp { secs: 1_000_000_000, nanos: 123_456_789 };
/// Longer than a filesystem's clock stands still.
const TICK: Duration = Duration::from_millis(20);

struct Case {
    fixture: Fixture,
    path: PathBuf,
}

impl Case {
    /// A sealed file with an old modification time.
    fn new() -> Self {
        let fixture = Fixture::new();
        let ino = fixture.file(ROOT, "f", "contents").unwrap().ino;
        let old = AttrChange { mtime: Some(NewTime::At(OLD)), ..AttrChange::default() };
        fixture.volume().set_attr(ino, &old, caller()).unwrap();
        let is_ours = |path: &PathBuf| fs::metadata(path).unwrap().ino() == ino;
        let path = fixture.backing(|_| true).into_iter().find(is_ours).unwrap();
        let mut case = Self { fixture, path };
        case.reopen();
        case
    }

    fn reopen(&mut self) {
        self.fixture.volume().flush(Duration::ZERO).unwrap();
        self.fixture.reopen();
    }

    fn shown(&self) -> Attr {
        let ino = self.fixture.find("f").unwrap();
        self.fixture.volume().attr(ino).unwrap()
    }

    fn times(&self) -> (Timestamp, Timestamp) {
        let shown = self.shown();
        (shown.mtime, shown.ctime)
    }

    fn set(&self, change: AttrChange) {
        sleep(TICK);
        self.fixture.volume().set_attr(self.shown().ino, &change, caller()).unwrap();
    }

    fn set_mtime(&self, mtime: NewTime) {
        self.set(AttrChange { mtime: Some(mtime), ..AttrChange::default() });
    }

    fn write(&self) {
        sleep(TICK);
        let opened =
            self.fixture.volume().open_handle(self.shown().ino, Access::ReadWrite).unwrap();
        opened.handle.file.write(0, b"changed", Origin::Caller).unwrap();
        self.fixture.volume().close(opened.handle);
    }

    /// Rotates the key and re-wraps; `changed` is told while the batch is not settled.
    fn rewrap_and(&self, changed: &mut dyn FnMut(&Path)) {
        let key = KeyRef::Id(self.fixture.key());
        self.fixture.keystore.rotate_key_on_demand(&key, SystemTime::now()).unwrap();
        self.rewrap_again(changed);
    }

    fn rewrap_again(&self, changed: &mut dyn FnMut(&Path)) {
        sleep(TICK);
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        let report = self.fixture.volume().rewrap(RewrapJob::default(), go_on, changed).unwrap();
        assert!(report.complete && report.rewrapped == 1, "{report:?}");
    }

    fn rewrap(&self) {
        self.rewrap_and(&mut |_| {});
    }
}

fn backing_mtime(path: &Path) -> Timestamp {
    let meta = fs::metadata(path).unwrap();
    Timestamp { secs: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap() }
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp { secs: time.secs + seconds, ..time }
}

#[test]
fn a_rewrap_moves_the_backing_time_by_a_second_and_shows_the_old_one() {
    let mut case = Case::new();
    let before = case.times();
    assert_eq!(before.0, OLD);
    for count in 1..=2 {
        case.rewrap();
        assert_eq!(backing_mtime(&case.path), later(OLD, count));
        assert_eq!(case.times(), before, "re-wrap {count}");
        case.reopen();
        assert_eq!(case.times(), before, "opened again after re-wrap {count}");
    }
    case.fixture.reopen_with(Options { read_only: true, ..Options::default() });
    assert_eq!(case.times(), before, "for reading only");
    case.reopen();
    case.set(AttrChange { mode: Some(0o600), ..AttrChange::default() });
    let changed = case.times();
    assert!(changed.0 == OLD && changed.1 > before.1, "after chmod: {changed:?}");
    case.reopen();
    assert_eq!(case.times(), changed, "opened again after chmod");
    case.rewrap();
    assert_eq!(backing_mtime(&case.path), later(OLD, 3));
    assert_eq!(case.times(), changed, "after chmod and a re-wrap");
}

/// What was sealed is sealed still, so nothing is written for the time alone.
#[test]
fn a_rewrapped_file_is_not_sealed_again() {
    let mut case = Case::new();
    case.rewrap();
    case.reopen();
    let before = fs::read(&case.path).unwrap();
    let opened = case.fixture.volume().open_handle(case.shown().ino, Access::ReadWrite).unwrap();
    assert!(
        !opened
            .handle
            .file
            .for_caller()
            .unwrap()
            .seal(kmsfs::volume::content::SealEffort::Full)
            .unwrap()
    );
    case.fixture.volume().close(opened.handle);
    assert!(fs::read(&case.path).unwrap() == before);
}

#[test]
fn what_a_user_does_after_a_rewrap_decides_what_is_shown() {
    let other = Timestamp { secs: 7, nanos: 8 };
    let moved = later(OLD, 1);
    type Act = fn(&Case);
    let cases: [(&str, Act, Option<Timestamp>); 8] = [
        (
            "another time",
            |case| case.set_mtime(NewTime::At(Timestamp { secs: 7, nanos: 8 })),
            Some(other),
        ),
        (
            "the time that the backing file has",
            |case| case.set_mtime(NewTime::At(later(OLD, 1))),
            Some(moved),
        ),
        ("the time that is shown", |case| case.set_mtime(NewTime::At(OLD)), Some(OLD)),
        ("now", |case| case.set_mtime(NewTime::Now), None),
        (
            "the access time alone",
            |case| case.set(AttrChange { atime: Some(NewTime::Now), ..AttrChange::default() }),
            Some(OLD),
        ),
        (
            "a truncation",
            |case| case.set(AttrChange { size: Some(2), ..AttrChange::default() }),
            None,
        ),
        (
            "one to the size that it has",
            |case| case.set(AttrChange { size: Some(8), ..AttrChange::default() }),
            None,
        ),
        ("a write", Case::write, None),
    ];
    for (what, act, wanted) in cases {
        let mut case = Case::new();
        case.rewrap();
        let before = case.times();
        act(&case);
        let after = case.times();
        assert!(after.1 > before.1, "{what}: {after:?}");
        match wanted {
            Some(wanted) => assert_eq!(after.0, wanted, "{what}"),
            None => assert!(after.0 > moved, "{what}: {after:?}"),
        }
        case.reopen();
        assert_eq!(case.times(), after, "{what}, opened again");
        case.rewrap();
        assert_eq!(case.times(), after, "{what}, re-wrapped again");
    }
}

/// A backup that goes by times would never see the new header.
#[test]
fn the_time_that_is_shown_can_be_set_and_backups_see_the_rewrap_still() {
    let case = Case::new();
    case.rewrap();
    case.set_mtime(NewTime::At(OLD));
    assert_eq!((case.times().0, backing_mtime(&case.path)), (OLD, later(OLD, 1)));
}

/// The new header was on the disk, and the time was not; the old header was there still.
#[test]
fn a_rewrap_that_a_crash_cut_short_moves_the_time_again() {
    let case = Case::new();
    let mut seen = Vec::new();
    case.rewrap_and(&mut |_| seen = fs::read(&case.path).unwrap());
    let file = fs::File::options().write(true).open(&case.path).unwrap();
    assert!(fs::read(&case.path).unwrap() != seen, "the old header goes only later");
    file.write_all_at(&seen, 0).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, OLD.nanos);
    file.set_modified(old).unwrap();
    case.rewrap_again(&mut |_| {});
    assert_eq!(backing_mtime(&case.path), later(OLD, 1));
    assert_eq!(case.times().0, OLD);
}

#[test]
fn without_its_list_a_vault_shows_times_that_are_a_second_late() {
    let mut case = Case::new();
    case.rewrap();
    case.fixture.close();
    let list = case.fixture.vault().join(".kmsfs/times");
    let saved = fs::read(&list).unwrap();
    fs::remove_file(&list).unwrap();
    case.fixture.reopen();
    assert_eq!(case.times().0, later(OLD, 1));
    // Nobody without the volume's key makes a list that counts.
    case.fixture.close();
    let forged: Vec<u8> =
        saved.chunks(48).flat_map(|record| [&record[..40], &[7; 8]].concat()).collect();
    fs::write(&list, forged).unwrap();
    case.fixture.reopen();
    assert_eq!(case.times().0, later(OLD, 1));
    case.fixture.close();
    fs::write(&list, saved).unwrap();
    case.fixture.reopen();
    assert_eq!(case.times().0, OLD);
}

/// A list that outgrew what is read of one at a mount was dropped there whole.
#[test]
fn regression_a_list_of_shown_times_stays_short_while_the_volume_is_open() {
    let case = Case::new();
    case.rewrap();
    let list = case.fixture.vault().join(".kmsfs/times");
    let file = fs::File::options().write(true).open(&list).unwrap();
    file.write_all_at(&vec![0; 100_000], file.metadata().unwrap().len()).unwrap();
    let before = case.times();
    case.rewrap();
    let length = fs::metadata(&list).unwrap().len();
    assert!(length < 10_000, "{length}");
    assert_eq!(case.times(), before);
}

/// What a kill in the middle of a batch left was the new time, and no word of the old one.
#[test]
fn regression_the_record_of_a_shown_time_is_written_before_the_next_file_is_rewrapped() {
    let case = Case::new();
    let list = case.fixture.vault().join(".kmsfs/times");
    let mut there = Vec::new();
    case.rewrap_and(&mut |_| there.push(fs::metadata(&list).is_ok_and(|list| list.len() > 0)));
    assert_eq!(there, [true]);
}
