//! A keystore's file under other names than its own.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use kmsfs::keystore::audit::AuditMode;
use kmsfs::keystore::{Keystore, KeystoreError, SecondName};

use crate::fixture::{Fixture, TempDir, by_id, day};

/// The file of a snapshot made of hard links was opened: it had a WAL of its own, and keys that had
/// been made were gone.
#[test]
fn regression_a_keystore_with_two_names_is_opened_under_neither() {
    for suffix in ["", "-wal", "-shm", ".audit", ".audit-wal"] {
        let f = Fixture::new();
        let key = f.key();
        f.keystore.flush_audit().unwrap();
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

/// A link to the keystore had an audit log of its own beside it, and each said that it was complete.
#[test]
fn regression_a_symbolic_link_leads_to_the_audit_log_as_well() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    let elsewhere = TempDir::new();
    let link = elsewhere.join("link.db");
    symlink(f.path(), &link).unwrap();
    let linked = Keystore::open(&link, &f.unlock()).unwrap();
    linked.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
    assert_eq!(linked.audit_path(), f.keystore.audit_path());
    assert!(linked.verify_audit().unwrap().is_clean());
    assert_eq!(linked.verify_audit().unwrap().records, f.keystore.verify_audit().unwrap().records);
    assert!(!elsewhere.join("link.db.audit").exists());
    // A link that leads to another keystore now is noticed.
    linked.check_path().unwrap();
    let other = Fixture::new();
    fs::remove_file(&link).unwrap();
    symlink(other.path(), &link).unwrap();
    linked.check_path().unwrap_err();
}

/// The log that earlier versions wrote beside a link is taken along.
#[test]
fn an_audit_log_beside_a_link_moves_to_the_keystore_unless_one_is_there() {
    let f = Fixture::new();
    f.key();
    let audit = f.keystore.audit_path().to_owned();
    let (path, unlock) = (f.path(), f.unlock());
    let Fixture { keystore, dir } = f;
    drop(keystore);
    let beside = dir.join("link.db.audit");
    symlink(&path, dir.join("link.db")).unwrap();
    fs::rename(&audit, &beside).unwrap();
    let linked = Keystore::open(&dir.join("link.db"), &unlock).unwrap();
    assert!(audit.exists() && !beside.exists());
    assert!(linked.verify_audit().unwrap().is_clean());
    drop(linked);
    fs::copy(&audit, &beside).unwrap();
    let before = fs::read(&audit).unwrap();
    drop(Keystore::open(&dir.join("link.db"), &unlock).unwrap());
    assert!(beside.exists(), "two logs are not made one");
    assert_eq!(fs::read(&audit).unwrap(), before);
}

/// Root used a user's keystore once, and the log was root's from then on: the user's own records were
/// lost, or all keys refused.
#[test]
fn regression_the_audit_log_that_root_makes_belongs_to_the_owner_of_the_keystore() {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let f = Fixture::new();
    chown(f.path(), Some(4321), Some(4322)).unwrap();
    f.key();
    f.keystore.flush_audit().unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let there = fs::metadata(f.dir.join(&format!("store.db.audit{suffix}"))).unwrap();
        assert_eq!((there.uid(), there.gid()), (4321, 4322), "{suffix}");
    }
}
