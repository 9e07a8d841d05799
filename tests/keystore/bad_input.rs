//! Files that are not what they should be: each message says what, which, and what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use kmsfs::keystore::{Keystore, KeystoreError, Unlock, create_key_file};

use crate::fixture::{Fixture, TempDir, day};

fn open_error(path: &Path, f: &Fixture) -> String {
    Keystore::open(path, &f.unlock()).unwrap_err().to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_keystore_is_private_and_leaves_nothing_beside_it() {
    let f = Fixture::new();
    f.key();
    for name in ["store.db", "store.db-wal", "store.db-shm", "key"] {
        assert_eq!(mode(&f.dir.join(name)), 0o600, "{name}");
    }
    let nested = f.dir.join("a/b/store.db");
    Keystore::create(&nested, &f.unlock(), day(0)).unwrap();
    assert_eq!((mode(&f.dir.join("a")), mode(&f.dir.join("a/b"))), (0o700, 0o700));
    let names: Vec<_> = fs::read_dir(f.dir.join("a/b")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn create_never_overwrites() {
    let f = Fixture::new();
    fs::write(f.dir.join("file"), "precious").unwrap();
    symlink("nowhere", f.dir.join("dangling")).unwrap();
    for name in ["store.db", "file", "dangling"] {
        let error = Keystore::create(&f.dir.join(name), &f.unlock(), day(0)).unwrap_err();
        assert!(matches!(error, KeystoreError::Exists(_)), "{name}: {error}");
    }
    assert_eq!(fs::read(f.dir.join("file")).unwrap(), b"precious");
    f.reopen();
}

#[test]
fn what_is_no_keystore_is_told_apart() {
    let f = Fixture::new();
    assert!(open_error(&f.dir.join("none"), &f).contains("kmsfs keystore init"));
    fs::write(f.dir.join("empty"), "").unwrap();
    fs::write(f.dir.join("text"), "a text of more than sixteen bytes").unwrap();
    let database = rusqlite::Connection::open(f.dir.join("foreign")).unwrap();
    database.execute_batch("CREATE TABLE t (x); PRAGMA user_version = 1").unwrap();
    drop(database);
    for name in ["empty", "text", "foreign"] {
        fs::set_permissions(f.dir.join(name), fs::Permissions::from_mode(0o644)).unwrap();
        let before = fs::read(f.dir.join(name)).unwrap();
        let error = open_error(&f.dir.join(name), &f);
        assert!(error.ends_with("is not a kmsfs keystore"), "{name}: {error}");
        assert_eq!(fs::read(f.dir.join(name)).unwrap(), before, "{name} was changed");
        assert_eq!(mode(&f.dir.join(name)), 0o644, "{name}");
    }
    let error = open_error(f.dir.path(), &f);
    assert!(error.ends_with("is not a kmsfs keystore"), "a directory: {error}");
    let mut cut = fs::read(f.path()).unwrap();
    cut.truncate(3000);
    fs::write(f.dir.join("cut"), cut).unwrap();
    let error = Keystore::open(&f.dir.join("cut"), &f.unlock()).unwrap_err();
    assert!(
        matches!(error, KeystoreError::NotAKeystore(_) | KeystoreError::Database { .. }),
        "{error}"
    );
}

#[test]
fn a_newer_schema_asks_for_an_upgrade_and_is_not_touched() {
    let f = Fixture::new();
    f.sql("PRAGMA user_version = 99");
    let error = open_error(&f.path(), &f);
    assert!(error.contains("schema 99") && error.contains("upgrade kmsfs"), "{error}");
}

#[test]
fn a_keystore_that_was_opened_to_others_is_made_private_again() {
    let f = Fixture::new();
    fs::set_permissions(f.path(), fs::Permissions::from_mode(0o644)).unwrap();
    f.reopen();
    assert_eq!(mode(&f.path()), 0o600);
}

#[test]
fn key_files_are_checked() {
    let f = Fixture::new();
    let open = |name: &str| {
        Keystore::open(&f.path(), &Unlock::KeyFile(f.dir.join(name))).unwrap_err().to_string()
    };
    fs::write(f.dir.join("exposed"), [7; 32]).unwrap();
    fs::set_permissions(f.dir.join("exposed"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(open("exposed").contains("(mode 0640): run 'chmod 600'"), "{}", open("exposed"));
    let private = |name: &str, bytes: &[u8]| {
        fs::write(f.dir.join(name), bytes).unwrap();
        fs::set_permissions(f.dir.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    };
    private("short", &[7; 31]);
    assert!(open("short").contains("31 bytes, at least 32"));
    private("long", &vec![7; (1 << 20) + 1]);
    assert!(open("long").contains("more than 1 MiB"));
    private("wrong", &[7; 32]);
    assert!(open("wrong").contains("the key file does not open"));
    assert!(open("missing").contains("No such file"));
}

#[test]
fn a_key_file_is_made_once_with_a_line_of_text() {
    let dir = TempDir::new();
    create_key_file(&dir.join("key")).unwrap();
    let text = fs::read_to_string(dir.join("key")).unwrap();
    assert_eq!((text.len(), text.ends_with('\n')), (45, true));
    assert_eq!(mode(&dir.join("key")), 0o600);
    assert!(create_key_file(&dir.join("key")).is_err());
    assert_eq!(fs::read_to_string(dir.join("key")).unwrap(), text);
}

#[test]
fn a_keystore_that_somebody_locks_for_long_says_so() {
    let f = Fixture::new();
    let other = rusqlite::Connection::open(f.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = f.keystore.ensure_default_key(day(0)).unwrap_err();
    assert!(matches!(error, KeystoreError::Locked(_)), "{error}");
    assert!(error.to_string().contains("held by another process"), "{error}");
}
