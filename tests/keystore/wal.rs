//! The keystore's file, and the WAL that lies beside it: what is in which, and what belongs together.

use std::fs;
use std::path::Path;
use std::process::Command;

use kmsfs::keystore::{Keystore, KeystoreError};

use crate::fixture::{Fixture, by_id, day};

/// Copies in a process of its own: to close a file of SQLite ends the locks that this process has on
/// it.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-p").arg(from).arg(to).status().unwrap().success());
}

/// The newest material was only in the WAL, for as long as a daemon had the keystore open: a copy of
/// the file, or the file moved away, did not have it.
#[test]
fn regression_the_file_alone_has_every_key_material_and_slot() {
    let f = Fixture::new();
    let other = f.reopen();
    let key = f.key();
    let material = other.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
    kmsfs::keystore::create_key_file(&f.dir.join("second")).unwrap();
    let second = kmsfs::keystore::Unlock::KeyFile(f.dir.join("second"));
    f.keystore.add_slot(&second, day(0)).unwrap();
    copy(&f.path(), &f.dir.join("copy.db"));
    let copied = Keystore::open(&f.dir.join("copy.db"), &second).unwrap();
    assert_eq!(copied.current_material(key).unwrap(), material);
    assert!(copied.verify().unwrap().is_clean());
}

/// A keystore that was put beside the WAL of another was damaged for good by the first look at it.
#[test]
fn regression_the_wal_of_another_keystore_is_not_written_into_one() {
    let (f, stranger) = (Fixture::new(), Fixture::new());
    f.key();
    let put = f.dir.join("put.db");
    let wal = f.dir.join("put.db-wal");
    copy(&f.checkpointed(), &put);
    let whole = fs::read(&put).unwrap();
    for f in [&stranger, &f] {
        // The WAL has the last change, and not the one before, which is in the file.
        let alias = "alias/a".parse().unwrap();
        f.keystore.create_alias(&alias, f.key(), day(0)).unwrap();
    }
    for from in [&stranger, &f] {
        copy(&from.dir.join("store.db-wal"), &wal);
        assert!(fs::metadata(&wal).unwrap().len() > 0);
        for _ in 0..2 {
            Keystore::slots_in_words(&put).ok();
            let error = Keystore::open(&put, &f.unlock()).unwrap_err();
            assert!(matches!(error, KeystoreError::StrangeWal { .. }), "{error}");
            assert!(error.to_string().contains("put.db-wal"), "{error}");
        }
        assert!(fs::read(&put).unwrap() == whole, "it was changed");
        fs::remove_file(&wal).unwrap();
        fs::remove_file(f.dir.join("put.db-shm")).ok();
        assert_eq!(Keystore::open(&put, &f.unlock()).unwrap().list_keys().unwrap().len(), 1);
    }
}

/// After a crash the WAL is the keystore's own, and has its newest rows.
#[test]
fn the_own_wal_of_a_keystore_is_taken_after_a_crash() {
    let f = Fixture::new();
    copy(&f.checkpointed(), &f.dir.join("crashed.db"));
    f.key();
    copy(&f.dir.join("store.db-wal"), &f.dir.join("crashed.db-wal"));
    let crashed = Keystore::open(&f.dir.join("crashed.db"), &f.unlock()).unwrap();
    assert_eq!(crashed.list_keys().unwrap(), f.keystore.list_keys().unwrap());
    drop(crashed);
    assert!(!f.dir.join("crashed.db-wal").exists());
}

/// An import, or a new keystore, was made under a name that a killed daemon's WAL still had, and
/// damaged for good by it; and the WAL was gone.
#[test]
fn regression_nothing_is_made_where_files_of_another_keystore_were_left() {
    let f = Fixture::new();
    f.key();
    f.keystore.export(&f.dir.join("export"), b"passphrase").unwrap();
    let path = f.dir.join("new.db");
    for suffix in ["-wal", "-shm", "-journal"] {
        let left = f.dir.join(&format!("new.db{suffix}"));
        copy(&f.dir.join("store.db-wal"), &left);
        let made = Keystore::create(&path, &f.unlock(), day(0));
        let imported =
            Keystore::import(&f.dir.join("export"), b"passphrase", &path, &f.unlock(), day(0));
        for error in [made.unwrap_err(), imported.unwrap_err()] {
            assert!(matches!(&error, KeystoreError::Leftover(what) if *what == left), "{error}");
        }
        assert!(!path.exists() && left.exists());
        fs::remove_file(left).unwrap();
    }
    Keystore::import(&f.dir.join("export"), b"passphrase", &path, &f.unlock(), day(0)).unwrap();
}

/// SQLite removes the WAL of who closes last, by its name, which is another file's by now.
#[test]
fn a_keystore_that_was_moved_away_takes_no_wal_of_another_along() {
    let (old, new) = (Fixture::new(), Fixture::new());
    old.key();
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("store.db{suffix}");
        fs::rename(old.dir.join(&name), old.dir.join(&format!("moved.db{suffix}"))).unwrap();
    }
    copy(&new.checkpointed(), &old.path());
    let there = Keystore::open(&old.path(), &new.unlock()).unwrap();
    there.create_key(kmsfs::keystore::CreateKey::default(), day(0)).unwrap();
    assert!(old.dir.join("store.db-wal").exists());
    let Fixture { keystore, dir } = old;
    drop(keystore);
    assert!(dir.join("store.db-wal").exists());
    let unlock = kmsfs::keystore::Unlock::KeyFile(dir.join("key"));
    assert_eq!(
        Keystore::open(&dir.join("moved.db"), &unlock).unwrap().list_keys().unwrap().len(),
        1
    );
}

/// An audit log that was removed while its WAL stayed: the next one is damaged by it.
#[test]
fn regression_a_new_audit_log_takes_nothing_from_the_wal_of_the_one_before() {
    let f = Fixture::new();
    f.key();
    f.keystore.flush_audit().unwrap();
    let wal = fs::read(f.dir.join("store.db.audit-wal")).unwrap();
    let fresh = Fixture::new();
    fs::write(fresh.dir.join("store.db.audit-wal"), &wal).unwrap();
    fresh.key();
    fresh.keystore.flush_audit().unwrap();
    assert!(fresh.keystore.verify_audit().unwrap().is_clean());
    let aside = fs::read_dir(fresh.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let aside: Vec<_> =
        aside.filter(|name| name.to_string_lossy().contains(".audit-wal.left-")).collect();
    assert_eq!(fs::read(fresh.dir.path().join(&aside[0])).unwrap(), wal);
}

/// A repair would accept the rows of both together, and destroy the whole ones.
#[test]
fn regression_a_keystore_that_is_whole_without_a_wal_is_not_repaired_with_it() {
    let f = Fixture::new();
    f.key();
    copy(&f.checkpointed(), &f.dir.join("put.db"));
    let alias = "alias/a".parse().unwrap();
    f.keystore.create_alias(&alias, f.key(), day(0)).unwrap();
    copy(&f.dir.join("store.db-wal"), &f.dir.join("put.db-wal"));
    let damaged = Keystore::open_damaged(&f.dir.join("put.db"), &f.unlock()).unwrap();
    let error = damaged.repair().unwrap_err();
    assert!(matches!(error, KeystoreError::StrangeWal { .. }), "{error}");
}
