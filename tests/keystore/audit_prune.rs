//! Old records that are removed from the audit log, and the space that they took.

use std::time::UNIX_EPOCH;

use kmsfs::id::KeyId;
use kmsfs::keystore::EncryptionContext;
use kmsfs::keystore::audit::Pruned;

use crate::audit::contains;
use crate::fixture::{Fixture, by_id, day};

/// More than are removed in one transaction, and more than a megabyte.
fn with_many_records() -> (Fixture, KeyId) {
    let f = Fixture::new();
    let key = f.key();
    let context = EncryptionContext::new().with("app", "x".repeat(200));
    for _ in 0..2500 {
        f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    }
    f.keystore.flush_audit().unwrap();
    (f, key)
}

fn log(f: &Fixture) -> rusqlite::Connection {
    rusqlite::Connection::open(f.dir.join("store.db.audit")).unwrap()
}

fn size(f: &Fixture) -> u64 {
    std::fs::metadata(f.dir.join("store.db.audit")).unwrap().len()
}

fn prune(f: &Fixture) -> Pruned {
    let long_after = day(10_000);
    f.keystore.prune_audit(long_after.into(), long_after).unwrap()
}

/// The pages of removed records stayed in the file, to be used again.
#[test]
fn regression_pruning_gives_the_space_back_while_others_have_the_log_open() {
    let (f, key) = with_many_records();
    let other = f.reopen();
    other.describe_key(&by_id(key)).unwrap();
    other.flush_audit().unwrap();
    let sealed: Vec<u8> = log(&f)
        .query_row("SELECT sealed FROM record WHERE seq = 1234", [], |row| row.get(0))
        .unwrap();
    let pruned = prune(&f);
    assert!(pruned.removed > 2500, "{pruned:?}");
    assert_eq!(pruned.until, Some(pruned.removed));
    assert!(size(&f) < 100_000, "{} bytes are left", size(&f));
    for name in ["store.db.audit", "store.db.audit-wal"] {
        let left = std::fs::read(f.dir.join(name)).unwrap_or_default();
        assert!(!contains(&left, &sealed), "{name} has a record that was removed");
    }
    other.describe_key(&by_id(key)).unwrap();
    let report = other.verify_audit().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.first, pruned.until.map(|until| until + 1));
    assert!(f.reopen().verify_audit().unwrap().is_clean());
}

#[test]
fn space_that_a_reader_keeps_is_given_back_the_next_time() {
    let (f, _) = with_many_records();
    let reader = log(&f);
    reader.execute_batch("BEGIN").unwrap();
    let count = || -> i64 {
        reader.query_row("SELECT count(*) FROM record", [], |row| row.get(0)).unwrap()
    };
    let before = count();
    assert!(prune(&f).removed > 2500);
    assert_eq!(count(), before, "what it sees stays");
    assert!(f.keystore.verify_audit().unwrap().is_clean());
    reader.execute_batch("END").unwrap();
    let nothing = f.keystore.prune_audit(UNIX_EPOCH.into(), day(0)).unwrap();
    assert_eq!(nothing, Pruned::default());
    assert!(size(&f) < 100_000, "{} bytes are left", size(&f));
    assert!(f.keystore.verify_audit().unwrap().is_clean());
}
