//! How long a file is, whatever the length of its backing file says.
//!
//! Dropping a volume without ending it is what a killed daemon leaves.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmsfs::envelope::WAITING;
use kmsfs::envelope::layout::backing_len;
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::Access;
use kmsfs::volume::{FileHandle, Options, Origin, VolumeError};

use crate::fixture::{Fixture, ROOT};
use crate::sessions::{PAGE, is_tampered, page, pattern, put_page, read, recover, write};

/// Where the unit of page 0 begins, behind the header slots.
const UNIT: usize = 1024;

/// A file of `length` bytes, sealed by a session that ended cleanly.
fn sealed(length: usize) -> (Fixture, PathBuf) {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    write(&fixture, "file", 0, &pattern(length, 1)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    let path = ciphertext(&fixture);
    (fixture, path)
}

/// The ciphertext of the only file.
pub(crate) fn ciphertext(fixture: &Fixture) -> PathBuf {
    let inside = fs::read_dir(fixture.vault()).unwrap().map(|entry| entry.unwrap());
    let is_own = |name: std::ffi::OsString| name.to_string_lossy().starts_with(".kmsfs");
    inside.filter(|entry| !is_own(entry.file_name())).map(|entry| entry.path()).next().unwrap()
}

fn set_length(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn shown(fixture: &Fixture, name: &str) -> u64 {
    fixture.volume().lookup(ROOT, name.as_bytes()).unwrap().unwrap().size
}

fn open(fixture: &Fixture) -> FileHandle {
    let ino = fixture.find("file").unwrap();
    fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle
}

/// The honest length of a small file was refused if its change time was not that of the crash: a clock
/// that was set, a chmod, a copy of the vault.
#[test]
fn regression_a_small_file_is_as_long_as_its_page_says_whatever_its_change_time() {
    for hint in [100, 300] {
        let (mut fixture, path) = sealed(100);
        write(&fixture, "file", 0, &pattern(200, 2)).unwrap();
        // Killed, and the power fails: the page has arrived, and the length has not.
        fixture.reopen();
        set_length(&path, (PAGE + hint) as u64);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(shown(&fixture, "file"), 200, "before it is opened");
        assert_eq!(read(&fixture, "file").unwrap(), pattern(200, 2));
        set_length(&path, (PAGE + hint) as u64);
        let report = recover(&fixture);
        assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
        assert_eq!(length(&path), backing_len(200), "recovery puts the length right");
        fixture.volume().end().unwrap();
        fixture.reopen();
        assert_eq!(read(&fixture, "file").unwrap(), pattern(200, 2));
    }
}

#[test]
fn the_length_of_a_small_file_is_no_lever_for_whoever_writes_to_the_vault() {
    for hint in [0, 50, 200, 4000] {
        for read_only in [true, false] {
            let (mut fixture, path) = sealed(100);
            fixture.volume().end().unwrap();
            set_length(&path, (PAGE + hint) as u64);
            fixture.reopen_with(Options { read_only, ..Options::default() });
            let kernel = fixture.kernel();
            let ino = fixture.find("file").unwrap();
            match fixture.volume().open_handle(ino, Access::ReadOnly) {
                Ok(opened) => {
                    assert!(read_only && opened.resized, "the kernel hears of it with the answer");
                    fixture.volume().close(opened.handle);
                }
                Err(VolumeError::Stale) => assert!(!read_only, "the kernel looks again"),
                Err(error) => panic!("{error}"),
            }
            assert_eq!(read(&fixture, "file").unwrap(), pattern(100, 1), "{hint}");
            fixture.volume().tell_sizes();
            assert!(kernel.take().contains(&ino), "the kernel knows another size");
            let put_right = if read_only { (PAGE + hint) as u64 } else { backing_len(100) };
            assert_eq!(length(&path), put_right);
        }
    }
}

#[test]
fn a_shorter_page_under_a_newer_seal_is_tampering() {
    let (mut fixture, path) = sealed(100);
    let old = page(&path, 0);
    write(&fixture, "file", 100, &pattern(100, 2)).unwrap();
    fixture.volume().end().unwrap();
    fixture.reopen();
    let mut now = page(&path, 0);
    now[UNIT..].copy_from_slice(&old[UNIT..]);
    for crashed in [false, true] {
        if crashed {
            fixture.file(ROOT, "other", "x").unwrap();
        }
        put_page(&path, 0, &now);
        for hint in [100, 200] {
            set_length(&path, (PAGE + hint) as u64);
            fixture.reopen();
            is_tampered(read(&fixture, "file"));
        }
        now[UNIT..].fill(0);
    }
}

/// What was synced and closed stood above its seal for half a minute, and whoever cut it then was
/// believed.
#[test]
fn regression_what_this_mount_has_synced_is_not_cut_unnoticed() {
    for by_itself in [true, false] {
        let (fixture, path) = sealed(9000);
        write(&fixture, "file", 9000, &pattern(50_000, 2)).unwrap();
        if by_itself {
            let handle = open(&fixture);
            handle.file.sync(Durability::Contents).unwrap();
            fixture.volume().close(handle);
        } else {
            rustix::fs::syncfs(fs::File::open(&path).unwrap()).unwrap();
            let handle = open(&fixture);
            handle.file.sync(Durability::Contents).unwrap();
            fixture.volume().close(handle);
        }
        let whole = fs::read(&path).unwrap();
        for size in [20_000, 58_999] {
            set_length(&path, backing_len(size) / PAGE as u64 * PAGE as u64);
            set_length(&path, backing_len(size));
            is_tampered(read(&fixture, "file"));
            OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&whole, 0).unwrap();
            set_length(&path, backing_len(59_000));
            assert_eq!(read(&fixture, "file").unwrap().len(), 59_000);
        }
        // Its owner may cut it.
        let handle = open(&fixture);
        handle.file.truncate(20_000).unwrap();
        fixture.volume().close(handle);
        assert_eq!(read(&fixture, "file").unwrap().len(), 20_000);
    }
}

/// A log that is synced with every line was never idle, and so never sealed while it was open: cut
/// after a crash, it was believed.
#[test]
fn regression_what_is_synced_all_the_time_is_sealed_as_well() {
    let (mut fixture, path) = sealed(9000);
    let handle = open(&fixture);
    let mut size = 9000;
    for line in 0..40 {
        handle.file.write(size, &pattern(1000, line), Origin::Caller).unwrap();
        size += 1000;
        handle.file.sync(Durability::Contents).unwrap();
    }
    fixture.volume().flush(Duration::ZERO).unwrap();
    assert_eq!(handle.file.for_caller().unwrap().header().unwrap().seal.size, size);
    // In the middle of the next line the daemon is killed.
    handle.file.write(size, &pattern(1000, 41), Origin::Caller).unwrap();
    drop(handle);
    fixture.reopen();
    assert!(read(&fixture, "file").unwrap().len() as u64 >= size, "an honest crash");
    let whole = fs::read(&path).unwrap();
    fixture.close();
    for cut in [20_000, size - 5000] {
        set_length(&path, backing_len(cut));
        fixture.reopen();
        is_tampered(read(&fixture, "file"));
        fs::write(&path, &whole).unwrap();
    }
}

/// A seal took the attacker's length, and zeros that nobody wrote became contents after a crash.
#[test]
fn regression_a_file_that_was_made_longer_is_not_written_behind_the_gap() {
    let mut fixture = Fixture::new();
    fixture.file(ROOT, "file", "").unwrap();
    write(&fixture, "file", 0, &pattern(9000, 1)).unwrap();
    fixture.volume().end().unwrap();
    let path = ciphertext(&fixture);
    for longer in [9001, 12_288, 40_960] {
        set_length(&path, backing_len(longer));
        fixture.reopen();
        is_tampered(write(&fixture, "file", longer, b"appended"));
        let handle = open(&fixture);
        assert_eq!(handle.file.read(0, &mut [0; 8192]).unwrap(), 8192, "what is there is read");
        is_tampered(handle.file.read(8192, &mut [0; 4096]));
        is_tampered(handle.file.truncate(longer - 1));
        fixture.volume().close(handle);
        fixture.volume().end().unwrap();
        fixture.reopen();
        is_tampered(write(&fixture, "file", 8192, b"changed"));
        fixture.volume().end().unwrap();
        set_length(&path, backing_len(9000));
        fixture.reopen();
        assert_eq!(read(&fixture, "file").unwrap(), pattern(9000, 1), "nothing was sealed");
        fixture.volume().end().unwrap();
    }
    set_length(&path, backing_len(40_960));
    fixture.reopen();
    let handle = open(&fixture);
    handle.file.truncate(0).unwrap();
    fixture.volume().close(handle);
    write(&fixture, "file", 0, b"anew").unwrap();
    assert_eq!(read(&fixture, "file").unwrap(), b"anew");
}

/// A database could not look through its journal: the backing filesystem has zeros where a page never
/// arrived, and here was an error for ever.
#[test]
fn regression_a_page_that_never_arrived_reads_as_zeros_after_a_crash() {
    let (mut fixture, path) = sealed(9000);
    write(&fixture, "file", 9000, &pattern(60_000, 2)).unwrap();
    let mut expected = [pattern(9000, 1), pattern(60_000, 2)].concat();
    // The power fails. Block 6 is not there.
    fixture.reopen();
    put_page(&path, 8, &[0; PAGE]);
    expected[6 * PAGE..7 * PAGE].fill(0);
    assert_eq!(read(&fixture, "file").unwrap(), expected);
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
    fixture.volume().end().unwrap();
    fixture.reopen();
    assert_eq!(read(&fixture, "file").unwrap(), expected);
    // Now that it is sealed, a page that is taken away is missed.
    put_page(&path, 9, &[0; PAGE]);
    is_tampered(read(&fixture, "file"));
    // So it is below the seal right after the crash, and without one.
    let (mut fixture, path) = sealed(90_000);
    put_page(&path, 8, &[0; PAGE]);
    is_tampered(read(&fixture, "file"));
    write(&fixture, "file", 50_000, b"x").unwrap();
    fixture.reopen();
    is_tampered(read(&fixture, "file"));
}

/// What was synced after the crash could be taken away as well, as long as recovery had not come by.
#[test]
fn regression_a_page_that_was_synced_since_the_crash_is_no_zeros() {
    let (mut fixture, path) = sealed(9000);
    write(&fixture, "file", 9000, &pattern(60_000, 2)).unwrap();
    // The power fails. Block 6 is not there.
    fixture.reopen();
    put_page(&path, 8, &[0; PAGE]);
    let handle = open(&fixture);
    for block in [5, 8, 30] {
        handle.file.write(block * PAGE as u64, &pattern(PAGE, 3), Origin::Caller).unwrap();
    }
    fixture.volume().sync_file(&handle, Durability::Contents).unwrap();
    let read_block = |block: u64| {
        let mut bytes = vec![0xee; PAGE];
        handle.file.read(block * PAGE as u64, &mut bytes).map(|_| bytes)
    };
    assert_eq!(read_block(6).unwrap(), [0; PAGE], "what the crash took is zeros all the same");
    for block in [5, 8, 30] {
        assert_eq!(read_block(block).unwrap(), pattern(PAGE, 3));
        let number = block + 2;
        let good = page(&path, number);
        put_page(&path, number, &[0; PAGE]);
        is_tampered(read_block(block));
        put_page(&path, number, &good);
    }
    fixture.volume().close(handle);
    let report = recover(&fixture);
    assert!(report.complete && report.spoiled.is_empty(), "{report:?}");
}

/// Its files were not looked at again before the next mount.
#[test]
fn regression_recovery_goes_on_once_the_key_that_it_waits_for_is_back() {
    let (mut fixture, _) = sealed(9000);
    let mut usable = BTreeSet::new();
    fixture.mkdir(ROOT, "dir").unwrap();
    let (dir, other) = (fixture.find("dir").unwrap(), fixture.new_key());
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    fixture.file(dir, "inside", "").unwrap();
    write(&fixture, "dir/inside", 0, &pattern(9000, 4)).unwrap();
    fixture.reopen();
    assert!(!fixture.volume().has_key_come_back(&mut usable), "nothing waits");
    fixture.disable(other);
    assert_eq!(recover(&fixture).waiting, [other.to_string()]);
    assert!(!fixture.volume().has_key_come_back(&mut usable));
    fixture.enable(other);
    fixture.volume().watch_keys();
    assert!(fixture.volume().has_key_come_back(&mut usable));
    assert!(!fixture.volume().has_key_come_back(&mut usable), "told once");
    let report = recover(&fixture);
    assert!(report.complete && report.waiting.is_empty(), "{report:?}");
    assert!(fixture.volume().unrecovered().is_empty());
}

/// A list of keys too long for the record was forgotten, and so was the wait for them.
#[test]
fn regression_recovery_waits_for_any_number_of_keys() {
    let (mut fixture, _) = sealed(9000);
    let mut usable = BTreeSet::new();
    let keys: Vec<_> = (0..WAITING + 1).map(|_| fixture.new_key()).collect();
    for (number, key) in keys.iter().enumerate() {
        let name = format!("dir {number}");
        let dir = fixture.mkdir(ROOT, &name).unwrap().ino;
        fixture.volume().set_dir_policy(dir, *key, None).unwrap();
        fixture.file(dir, "inside", "").unwrap();
        write(&fixture, &format!("{name}/inside"), 0, &pattern(9000, 4)).unwrap();
    }
    fixture.reopen();
    keys.iter().for_each(|key| fixture.disable(*key));
    assert_eq!(recover(&fixture).waiting.len(), keys.len());
    assert!(!fixture.volume().has_key_come_back(&mut usable));
    for key in keys {
        fixture.enable(key);
        fixture.volume().watch_keys();
        assert!(fixture.volume().has_key_come_back(&mut usable));
        assert!(recover(&fixture).complete);
    }
    assert!(fixture.volume().unrecovered().is_empty());
}

/// The same by itself.
#[test]
fn a_volume_recovers_by_itself_once_the_key_that_it_waits_for_is_back() {
    let (mut fixture, _) = sealed(9000);
    fixture.mkdir(ROOT, "dir").unwrap();
    let (dir, other) = (fixture.find("dir").unwrap(), fixture.new_key());
    fixture.volume().set_dir_policy(dir, other, None).unwrap();
    fixture.file(dir, "inside", "").unwrap();
    write(&fixture, "dir/inside", 0, &pattern(9000, 4)).unwrap();
    fixture.disable(other);
    fixture.reopen();
    let upkeep = fixture.shared().start_upkeep().unwrap();
    let wait = |what: &dyn Fn() -> bool| {
        (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            what()
        })
    };
    let waits = || fixture.volume().unrecovered().iter().any(|crash| crash.waiting.is_some());
    assert!(wait(&waits), "recovery did not come to the file");
    fixture.enable(other);
    assert!(wait(&|| fixture.volume().unrecovered().is_empty()), "it waits for the next mount");
    drop(upkeep);
}
