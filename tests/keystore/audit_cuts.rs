//! The audit log that somebody cuts while processes have it open.

use kmsfs::id::KeyId;
use kmsfs::keystore::audit::AuditReport;
use kmsfs::keystore::{Keystore, KeystoreError};

use crate::audit::{all, log_sql, of, records, with_history};
use crate::fixture::{Fixture, by_id, day};

/// Writes so many records.
fn work(keystore: &Keystore, key: KeyId, count: usize) {
    for _ in 0..count {
        keystore.describe_key(&by_id(key)).unwrap();
    }
    keystore.flush_audit().unwrap();
}

fn cut_behind(f: &Fixture, seq: u64) {
    log_sql(
        f,
        &format!("DELETE FROM record WHERE seq > {seq}; DELETE FROM checkpoint WHERE seq > {seq}"),
    );
}

/// What the only record about missing ones says, and its number.
fn gap(keystore: &Keystore) -> (u64, String) {
    let found = records(keystore, &of("kmsfs:AuditGap"));
    assert_eq!(found.len(), 1, "{found:?}");
    (found[0].position.seq, found[0].event.detail.clone().unwrap())
}

fn has_problem(report: &AuditReport, what: &str) -> bool {
    report.problems.iter().any(|problem| problem.contains(what))
}

/// The place that the keystore had noted was compared once, when the log was opened: a process that
/// had it open wrote past that place, noted a new one, and nothing was left that showed the cut.
#[test]
fn regression_records_cut_off_under_a_live_process_are_noticed() {
    let (f, key) = with_history();
    f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
    cut_behind(&f, 10);
    // Enough to pass the noted place, which is 13.
    work(&f.keystore, key, 10);
    let (seq, detail) = gap(&f.keystore);
    assert_eq!(seq, 14, "numbers go on behind those that were given");
    assert!(detail.starts_with("records 11 to 13 are missing from the log; record 13"), "{detail}");
    f.key();
    f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
    for keystore in [&f.keystore, &f.reopen()] {
        let report = keystore.verify_audit().unwrap();
        assert_eq!(report.first_bad, Some(11), "{report:?}");
        assert!(has_problem(&report, "as record 14 says"), "{report:?}");
        assert!(has_problem(&report, "had a record 13 once"), "{report:?}");
    }
    work(&f.reopen(), key, 1);
    gap(&f.keystore);
}

/// Records behind the noted place were known to nobody once they were written.
#[test]
fn regression_records_cut_off_behind_the_noted_place_are_noticed_by_who_wrote_them() {
    let (f, key) = with_history();
    f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
    work(&f.keystore, key, 10);
    cut_behind(&f, 15);
    let report = f.keystore.verify_audit().unwrap();
    assert!(has_problem(&report, "the end was cut off"), "{report:?}");
    // Others know nothing of it, and may write over it.
    work(&f.reopen(), key, 20);
    work(&f.keystore, key, 1);
    let (seq, detail) = gap(&f.keystore);
    assert!(seq > 35, "{seq}");
    assert!(detail.starts_with("record 23 is not the one that was written"), "{detail}");
}

/// An append by a process that only reads the keystore leaves the noted place as it is: the next
/// process finds it missing as well, and does not tell of it again.
#[test]
fn a_cut_is_told_once_and_the_evidence_is_kept_until_the_keystore_has_it() {
    let (f, key) = with_history();
    f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
    let Fixture { keystore, dir } = f;
    drop(keystore);
    let f = Fixture::in_dir(dir);
    cut_behind(&f, 10);
    for _ in 0..3 {
        work(&f.reopen(), key, 2);
    }
    assert_eq!(gap(&f.keystore).0, 14);
    f.keystore.poll_changes().unwrap();
    work(&f.keystore, key, 1);
    // A daemon writes it into the keystore as soon as it looks for changes.
    f.keystore.poll_changes().unwrap();
    cut_behind(&f, 10);
    let report = f.reopen().verify_audit().unwrap();
    assert!(has_problem(&report, "had a record 13 once"), "{report:?}");
    assert!(has_problem(&report, "the end was cut off"), "the newer place: {report:?}");
}

/// A record of a log that was put back is there again.
#[test]
fn a_log_that_is_cut_again_and_again_tells_of_each_time() {
    let (f, key) = with_history();
    for round in 1..=3 {
        work(&f.keystore, key, 5);
        let end = all(&f.keystore).last().unwrap().position.seq;
        cut_behind(&f, end - 2);
        work(&f.keystore, key, 1);
        assert_eq!(records(&f.keystore, &of("kmsfs:AuditGap")).len(), round);
    }
}

/// Whoever prunes takes away what others know, with a signature that they can check.
#[test]
fn pruning_by_one_process_is_no_cut_to_another_and_a_forged_beginning_is() {
    let (f, key) = with_history();
    f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
    let other = f.reopen();
    work(&other, key, 3);
    let long_after = day(10_000);
    let pruned = f.keystore.prune_audit(long_after.into(), long_after).unwrap();
    assert_eq!(pruned.until, Some(16));
    work(&other, key, 3);
    let report = other.verify_audit().unwrap();
    assert!(report.is_clean(), "{report:?}");
    log_sql(
        &f,
        "UPDATE anchor SET seq = (SELECT max(seq) FROM record),
            hash = (SELECT hash FROM record ORDER BY seq DESC LIMIT 1);
         DELETE FROM record",
    );
    work(&other, key, 1);
    gap(&other);
}

/// Records that showed what was wrong were removed without a look, and the rest was good again.
#[test]
fn regression_a_damaged_log_is_not_pruned() {
    for edit in [
        "DELETE FROM record WHERE seq = 4",
        "UPDATE record SET sealed = randomblob(100) WHERE seq = 4",
        "UPDATE record SET hash = randomblob(32) WHERE seq = 4",
        "UPDATE anchor SET signature = randomblob(64)",
    ] {
        let (f, _) = with_history();
        log_sql(&f, edit);
        let rows = |f: &Fixture| {
            let log = rusqlite::Connection::open(f.dir.join("store.db.audit")).unwrap();
            log.query_row("SELECT count(*), max(seq) FROM record", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .unwrap()
        };
        let before = rows(&f);
        let long_after = day(10_000);
        for refused in [
            f.keystore.prunable_audit(long_after.into()).map(drop),
            f.keystore.prune_audit(long_after.into(), long_after).map(drop),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, KeystoreError::AuditDamaged { .. }), "{edit}: {error}");
            assert!(error.to_string().contains("nothing was removed"), "{error}");
        }
        assert_eq!(rows(&f), before, "{edit}");
        assert!(!f.keystore.verify_audit().unwrap().is_clean());
    }
}

/// What lies behind the cut stays, and what is wrong there still shows.
#[test]
fn damage_behind_the_cut_keeps_nobody_from_pruning() {
    let (f, key) = with_history();
    let late =
        kmsfs::keystore::Caller { at: Some(day(20_000)), ..kmsfs::keystore::Caller::owner() };
    work(&f.keystore.acting_for(late), key, 5);
    log_sql(&f, "DELETE FROM record WHERE seq = 16");
    assert_eq!(f.keystore.prune_audit(day(10_000).into(), day(20_000)).unwrap().until, Some(13));
    assert_eq!(f.keystore.verify_audit().unwrap().first_bad, Some(16));
}
