//! Files of which nothing was synced before a crash: their length is there, their header is not.
//!
//! What a crash leaves of such a file is put together here: its length, and space that is allocated
//! and was never written, or zeros, or some of its pages without the first.

use std::fs::{self, File, OpenOptions};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kmsfs::volume::{OpenFor, Options, Origin, Repair, Result, VolumeError};
use rustix::fs::{FallocateFlags, fallocate};

use crate::fixture::{Fixture, ROOT, caller};
use crate::sessions::{self, recover};

const PAGE: usize = 4096;
const LENGTH: u64 = 12 * PAGE as u64 + 100;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 253 + 1).unwrap()).collect()
}

fn write(fixture: &Fixture, bytes: &[u8]) -> Result<()> {
    sessions::write(fixture, "file", 0, bytes)
}

fn read(fixture: &Fixture) -> Result<Vec<u8>> {
    sessions::read(fixture, "file")
}

/// A file that was written and never synced, with its ciphertext; the volume is let go of as a
/// killed daemon lets go.
fn killed() -> (Fixture, PathBuf) {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    write(&fixture, &bytes(40_000)).unwrap();
    fixture.close();
    let mut entries = fs::read_dir(fixture.vault()).unwrap().map(|entry| entry.unwrap().path());
    let ours = |path: &PathBuf| !path.file_name().unwrap().to_str().unwrap().starts_with(".kmsfs");
    let file = entries.find(ours).unwrap();
    (fixture, file)
}

type Left = fn(&Path);

/// What a crash can leave.
const LEFT: [(&str, Left); 4] = [
    ("a hole", |file| {
        cut(file).set_len(LENGTH).unwrap();
    }),
    ("space that was never written", |file| {
        let file = cut(file);
        // Not every filesystem has such space: then it is a hole, or zeros.
        let _ = fallocate(&file, FallocateFlags::empty(), 0, LENGTH);
        file.set_len(LENGTH).unwrap();
        // As a look at the header does: pages of zeros are in the system's cache.
        file.read_exact_at(&mut [0; PAGE], 0).unwrap();
    }),
    ("zeros", |file| {
        cut(file).write_all_at(&vec![0; usize::try_from(LENGTH).unwrap()], 0).unwrap();
    }),
    ("pages without the first", |file| {
        let file = OpenOptions::new().write(true).open(file).unwrap();
        file.write_all_at(&[0; PAGE], 0).unwrap();
    }),
];

fn cut(file: &Path) -> File {
    OpenOptions::new().read(true).write(true).truncate(true).open(file).unwrap()
}

#[test]
fn regression_a_file_of_which_nothing_was_synced_is_empty_after_a_crash() {
    for (what, leave) in LEFT {
        let (mut fixture, file) = killed();
        leave(&file);
        fixture.reopen();
        assert_eq!(read(&fixture).unwrap(), b"", "{what}");
        write(&fixture, &bytes(9000)).unwrap();
        assert_eq!(read(&fixture).unwrap(), bytes(9000), "{what}");
        fixture.volume().end().unwrap();
        fixture.reopen();
        assert_eq!(read(&fixture).unwrap(), bytes(9000), "{what}: after a remount");
    }
}

#[test]
fn recovery_leaves_such_a_file_empty_for_good() {
    for (what, leave) in LEFT {
        let (mut fixture, file) = killed();
        leave(&file);
        fixture.reopen();
        let report = recover(&fixture);
        assert!(report.complete && report.spoiled.is_empty(), "{what}: {report:?}");
        assert_eq!(report.emptied.len(), 1, "{what}: {report:?}");
        assert!(fixture.volume().unrecovered().is_empty(), "{what}");
        assert_eq!(fs::metadata(&file).unwrap().len(), 0, "{what}");
        fixture.volume().end().unwrap();
        fixture.reopen();
        assert_eq!(read(&fixture).unwrap(), b"", "{what}");
    }
}

#[test]
fn a_check_tells_of_such_a_file_and_changes_nothing() {
    for (what, leave) in LEFT {
        let (mut fixture, file) = killed();
        leave(&file);
        let length = fs::metadata(&file).unwrap().len();
        fixture.reopen_with(Options { read_only: true, ..Options::default() });
        assert_eq!(read(&fixture).unwrap(), b"", "{what}");
        let report = fixture.volume().check(Repair::No, &mut |_| ControlFlow::Continue(()));
        let report = report.unwrap();
        assert!(report.is_clean() && report.emptied.len() == 1, "{what}: {report:?}");
        assert_eq!(fs::metadata(&file).unwrap().len(), length, "{what}");
    }
}

/// Without a crash a header that is gone is somebody's doing.
#[test]
fn without_a_crash_a_file_without_its_header_can_only_be_cut_removed_or_repaired() {
    for (what, leave) in LEFT {
        let (mut fixture, file) = killed();
        fixture.reopen();
        assert!(recover(&fixture).complete);
        fixture.volume().end().unwrap();
        leave(&file);
        fixture.reopen();
        assert!(matches!(read(&fixture), Err(VolumeError::Lost(_))), "{what}");
        assert!(write(&fixture, b"x").is_err(), "{what}");
        let blank = what != "pages without the first";
        let report = fixture.volume().check(Repair::Yes, &mut |_| ControlFlow::Continue(()));
        let report = report.unwrap();
        assert_eq!(report.problems.len(), 1, "{what}: {report:?}");
        assert_eq!(report.is_clean(), blank, "{what}: {report:?}");
        if blank {
            assert_eq!(read(&fixture).unwrap(), b"", "{what}");
        }
        fixture.volume().end().unwrap();
        leave(&file);
        fixture.reopen();
        let ino = fixture.find("file").unwrap();
        // As open(2) with O_TRUNC comes: an open, and then a change of the size.
        let handle = fixture.volume().open_as(ino, OpenFor::Writing, caller()).unwrap().handle;
        assert!(handle.file.read(0, &mut [0; 10]).is_err(), "{what}");
        assert!(handle.write(0, b"x", Origin::Caller).is_err(), "{what}");
        handle.file.truncate(0).unwrap();
        assert_eq!(handle.write(0, b"anew", Origin::Caller).unwrap(), 4, "{what}");
        fixture.volume().close(handle);
        assert_eq!(read(&fixture).unwrap(), b"anew", "{what}");
        fixture.volume().end().unwrap();
        leave(&file);
        fixture.reopen();
        fixture.volume().unlink(ROOT, b"file").unwrap();
        assert!(fixture.list(ROOT).is_empty(), "{what}");
    }
}
