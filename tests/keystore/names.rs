//! A keystore's file under other names than its own.

use std::fs;
use std::process::Command;

use kmsfs::keystore::{Keystore, KeystoreError, SecondName};

use crate::fixture::{Fixture, by_id, day};

/// The file of a snapshot made of hard links was opened: it had a WAL of its own, and keys that had
/// been made were gone.
#[test]
fn regression_a_keystore_with_two_names_is_opened_under_neither() {
    for suffix in ["", "-wal", "-shm"] {
        let f = Fixture::new();
        let key = f.key();
        let second = f.dir.join(&format!("snapshot.db{suffix}"));
        fs::hard_link(f.dir.join(&format!("store.db{suffix}")), &second).unwrap();
        let mut names = vec![f.path()];
        names.extend(suffix.is_empty().then_some(second.clone()));
        for name in names {
            let error = Keystore::open(&name, &f.unlock()).unwrap_err();
            let how = SecondName::Linked;
            assert!(matches!(error, KeystoreError::SecondName { how: found, .. } if found == how));
            assert!(error.to_string().contains("cp -a"), "{error}");
        }
        // Who has it open goes on: nobody else can open it.
        f.keystore.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
        fs::remove_file(second).unwrap();
        assert_eq!(f.reopen().list_keys().unwrap().len(), 1);
    }
}

#[test]
fn a_keystore_with_two_names_is_used_again_once_it_has_a_file_of_its_own() {
    let f = Fixture::new();
    f.key();
    let (path, unlock) = (f.path(), f.unlock());
    let Fixture { keystore, dir } = f;
    drop(keystore);
    fs::hard_link(&path, dir.join("snapshot.db")).unwrap();
    Keystore::open(&path, &unlock).unwrap_err();
    let own = dir.join("store.db.own");
    assert!(Command::new("cp").arg("-a").arg(&path).arg(&own).status().unwrap().success());
    fs::rename(own, &path).unwrap();
    for name in [path, dir.join("snapshot.db")] {
        assert_eq!(Keystore::open(&name, &unlock).unwrap().list_keys().unwrap().len(), 1);
    }
}

/// `docker -v keystore.db:/keystore.db`: both sides had a WAL of their own.
#[test]
fn regression_a_keystore_that_is_mounted_as_a_file_is_not_opened_there() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let f = Fixture::new();
    let there = f.dir.join("mounted.db");
    fs::write(&there, "").unwrap();
    let mounted = Command::new("mount").arg("--bind").arg(f.path()).arg(&there).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return;
    }
    let opened = Keystore::open(&there, &f.unlock());
    assert!(Command::new("umount").arg(&there).status().unwrap().success());
    let error = opened.unwrap_err();
    let how = SecondName::Mounted;
    assert!(
        matches!(error, KeystoreError::SecondName { how: found, .. } if found == how),
        "{error}"
    );
    f.reopen();
}
