//! Two sessions never change one vault, whatever whoever writes to it does to its lock.

use std::fs;
use std::io::Read;
use std::path::Path;

use kmsfs::volume::{Options, VolumeError, is_free};

use crate::fixture::{Fixture, ROOT};

fn is_in_use(fixture: &Fixture, read_only: bool) -> bool {
    let options = Options { read_only, ..Options::default() };
    matches!(fixture.try_open(options), Err(VolumeError::InUse))
}

/// Without the file the next session locked a new one.
#[test]
fn regression_a_lock_that_is_removed_or_exchanged_lets_no_second_session_in() {
    let fixture = Fixture::new();
    let lock = fixture.vault().join(".kmsfs/lock");
    type Spoiler = fn(&Path);
    let spoilers: [(&str, Spoiler); 4] = [
        ("removed", |lock| fs::remove_file(lock).unwrap()),
        ("exchanged", |lock| {
            fs::write(lock.with_file_name("other"), "").unwrap();
            fs::rename(lock.with_file_name("other"), lock).unwrap();
        }),
        ("a directory", |lock| {
            fs::remove_file(lock).unwrap();
            fs::create_dir(lock).unwrap();
        }),
        ("with all that is beside it", |lock| {
            fs::remove_dir(lock).unwrap();
            let meta = lock.parent().unwrap();
            let aside = meta.with_file_name("aside");
            fs::create_dir(&aside).unwrap();
            for entry in fs::read_dir(meta).unwrap() {
                let from = entry.unwrap().path();
                if from.is_file() {
                    fs::copy(&from, aside.join(from.file_name().unwrap())).unwrap();
                }
            }
            fs::rename(meta, meta.with_file_name("old")).unwrap();
            fs::rename(&aside, meta).unwrap();
        }),
    ];
    for (what, spoil) in spoilers {
        spoil(&lock);
        assert!(is_in_use(&fixture, false) && is_in_use(&fixture, true), "{what}");
        assert!(!is_free(fs::File::open(fixture.vault()).unwrap()), "{what}");
    }
}

#[test]
fn readers_share_a_vault_and_keep_sessions_that_change_it_out() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "x").unwrap();
    fixture.reopen_with(Options { read_only: true, ..Options::default() });
    assert!(!is_in_use(&fixture, true) && is_in_use(&fixture, false));
    fixture.close();
    assert!(!is_in_use(&fixture, false));
}

/// A file of somebody's was emptied.
#[test]
fn regression_a_file_in_the_place_of_the_lock_is_not_written_to() {
    let mut fixture = Fixture::new();
    fixture.close();
    let lock = fixture.vault().join(".kmsfs/lock");
    let somebodys = fixture.vault().join("../somebodys");
    fs::write(&somebodys, "precious").unwrap();
    let mut open = fs::File::open(&somebodys).unwrap();
    fs::rename(&somebodys, &lock).unwrap();
    fixture.reopen();
    assert!(is_in_use(&fixture, false));
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "precious");
    assert_eq!(fs::read(&lock).unwrap(), b"");
    assert!(!lock.with_file_name("lock.new").exists());
}

/// After `cp -al` of a vault neither it nor the copy could be opened for writing.
#[test]
fn regression_a_snapshot_by_hard_links_keeps_nobody_out() {
    let mut fixture = Fixture::new();
    fixture.close();
    let lock = fixture.vault().join(".kmsfs/lock");
    let snapshot = fixture.vault().join("../lock of a snapshot");
    fs::hard_link(&lock, &snapshot).unwrap();
    fixture.reopen();
    assert!(is_in_use(&fixture, false) && is_in_use(&fixture, true));
    // Who has the snapshot locks a file of its own.
    let of_snapshot = fs::File::open(&snapshot).unwrap();
    assert!(of_snapshot.try_lock().is_ok());
    fixture.reopen();
}
