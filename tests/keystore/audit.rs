//! The audit log: what is in it, and what is noticed about it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use kmsfs::crypto::ed25519::PublicKey;
use kmsfs::id::{FileId, KeyId};
use kmsfs::keystore::audit::{
    AuditFilter, AuditMode, AuditRecord, AuditReport, EventTime, FileOpen, verify_export,
};
use kmsfs::keystore::{
    Action, Caller, ClockTrust, CreateGrant, CreateKey, EncryptionContext, GrantOperation,
    Keystore, Origin, Principal, Source, Unlock, WrappingAlgorithm, WrappingKeySpec,
};

use crate::fixture::{Fixture, by_id, day};

pub(crate) fn records(keystore: &Keystore, filter: &AuditFilter) -> Vec<AuditRecord> {
    let mut all = Vec::new();
    let seen = keystore.audit_records(filter, |record| {
        all.push(record);
        ControlFlow::Continue(())
    });
    seen.unwrap();
    all
}

pub(crate) fn all(keystore: &Keystore) -> Vec<AuditRecord> {
    records(keystore, &AuditFilter::default())
}

pub(crate) fn of(operation: &str) -> AuditFilter {
    AuditFilter { operation: Some(operation.to_owned()), ..AuditFilter::default() }
}

fn export(keystore: &Keystore, filter: &AuditFilter) -> String {
    let mut out = Vec::new();
    keystore.export_audit(filter, &mut out, day(0)).unwrap();
    String::from_utf8(out).unwrap()
}

fn check(export: &str, keystore: &Keystore) -> AuditReport {
    let key = PublicKey::from_pem(&keystore.audit_public_key()).unwrap();
    verify_export(export.as_bytes(), &key).unwrap()
}

/// A keystore with some history, and the key that it is about.
pub(crate) fn with_history() -> (Fixture, KeyId) {
    let f = Fixture::new();
    let key = f.key();
    let context = EncryptionContext::new().with("app", "test");
    for _ in 0..5 {
        let blob = f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
        f.keystore.decrypt(&blob, &context, None).unwrap();
    }
    f.keystore.disable_key(&by_id(key)).unwrap();
    f.keystore.encrypt(&by_id(key), b"x", &context).unwrap_err();
    f.keystore.flush_audit().unwrap();
    (f, key)
}

pub(crate) fn log_sql(f: &Fixture, sql: &str) {
    let connection = rusqlite::Connection::open(f.dir.join("store.db.audit")).unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn a_record_says_who_did_what_with_which_key_and_what_came_of_it() {
    let f = Fixture::new();
    let key = f.key();
    let caller = Caller {
        at: Some(day(3)),
        request_id: Some("request-1".into()),
        source_ip: Some("192.0.2.7".parse().unwrap()),
        ..Caller::new(Principal::User("ci".into()), Source::Network)
    };
    let context = EncryptionContext::new().with("app", "test");
    let blob = f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    let denied = f.keystore.acting_for(caller).decrypt(&blob, &context, None).unwrap_err();
    let found = records(&f.keystore, &of("Decrypt"));
    assert_eq!(found.len(), 1);
    let event = &found[0].event;
    let arn = format!("arn:aws:kms:local:000000000000:key/{key}");
    assert_eq!(event.key.as_deref(), Some(arn.as_str()));
    assert_eq!(event.principal, "arn:aws:iam::000000000000:user/ci");
    assert_eq!((event.source.as_ref(), event.result.as_ref()), ("network", denied.aws_name()));
    assert_eq!(event.detail, Some(denied.to_string()));
    assert_eq!((event.request_id.as_str(), event.time), ("request-1", day(3).into()));
    assert_eq!(event.source_ip.as_deref(), Some("192.0.2.7"));
    assert_eq!(event.context.get("app").map(String::as_str), Some("test"));
    let made = &records(&f.keystore, &of("Encrypt"))[0].event;
    assert_eq!((made.result.as_ref(), made.source.as_ref()), ("Success", "cli"));
    assert_eq!(made.material, Some(blob.material_id().to_string()));
}

#[test]
fn a_log_is_whole_over_processes_restarts_and_thousands_of_records() {
    let f = Fixture::new();
    let key = f.key();
    for _ in 0..2500 {
        f.keystore.encrypt(&by_id(key), b"x", &EncryptionContext::new()).unwrap();
    }
    f.reopen().describe_key(&by_id(key)).unwrap();
    let report = f.keystore.verify_audit().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert!(report.records >= 2502 && report.checkpoints >= 1, "{report:?}");
    assert!(report.signed_until.unwrap() >= 1000, "{report:?}");
    let numbers: Vec<u64> = all(&f.keystore).iter().map(|record| record.position.seq).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn every_edit_of_the_log_is_noticed_and_the_first_bad_record_is_named() {
    for (edit, bad) in [
        ("UPDATE record SET sealed = randomblob(length(sealed)) WHERE seq = 4", 4),
        ("UPDATE record SET sealed = (SELECT sealed FROM record WHERE seq = 5) WHERE seq = 4", 4),
        ("UPDATE record SET hash = randomblob(32) WHERE seq = 4", 4),
        ("DELETE FROM record WHERE seq = 4", 4),
        ("DELETE FROM record WHERE seq BETWEEN 3 AND 6", 3),
        ("DELETE FROM record WHERE seq < 4", 1),
        ("DELETE FROM record WHERE seq > 4", 5),
        ("DELETE FROM record", 1),
        ("UPDATE record SET seq = seq + 1000 WHERE seq > 4", 5),
        ("UPDATE record SET seq = -seq WHERE seq = 4", 4),
        ("UPDATE checkpoint SET signature = randomblob(64)", 13),
        ("UPDATE checkpoint SET hash = randomblob(32)", 13),
        ("UPDATE checkpoint SET seq = 4", 4),
        ("UPDATE checkpoint SET time = time + 1", 13),
        ("UPDATE anchor SET seq = 1", 1),
        ("UPDATE anchor SET hash = randomblob(32)", 0),
        ("UPDATE anchor SET signature = randomblob(64)", 0),
    ] {
        let (f, _) = with_history();
        let end = f.keystore.audit_checkpoint(day(0)).unwrap().unwrap().position.seq;
        assert_eq!(end, 13);
        assert!(f.keystore.verify_audit().unwrap().is_clean());
        log_sql(&f, edit);
        let report = f.keystore.verify_audit().unwrap();
        assert!(!report.is_clean(), "{edit}");
        assert_eq!(report.first_bad, Some(bad), "{edit}: {report:?}");
    }
}

#[test]
fn a_log_that_was_removed_or_cut_says_so_for_ever() {
    for sql in ["", "DELETE FROM record WHERE seq > 4; DELETE FROM checkpoint"] {
        let (f, key) = with_history();
        f.keystore.audit_checkpoint(day(0)).unwrap().unwrap();
        let Fixture { keystore, dir } = f;
        drop(keystore);
        let f = if sql.is_empty() {
            std::fs::remove_file(dir.join("store.db.audit")).unwrap();
            Fixture::in_dir(dir)
        } else {
            let f = Fixture::in_dir(dir);
            log_sql(&f, sql);
            f
        };
        f.keystore.describe_key(&by_id(key)).unwrap();
        let gap = records(&f.keystore, &of("kmsfs:AuditGap"));
        assert_eq!(gap.len(), 1, "{gap:?}");
        assert_eq!(gap[0].position.seq, 14, "numbers go on behind those that were given");
        let report = f.keystore.verify_audit().unwrap();
        assert!(report.problems.iter().any(|what| what.contains("missing")), "{report:?}");
    }
}

#[test]
fn the_log_of_another_keystore_in_its_place_is_noticed() {
    let (f, _) = with_history();
    let (other, key) = with_history();
    f.keystore.audit_checkpoint(day(0)).unwrap();
    other.keystore.audit_checkpoint(day(0)).unwrap();
    drop(f.keystore);
    let from = f.dir.join("store.db.audit");
    let to = other.dir.join("store.db.audit");
    std::fs::remove_file(to.with_extension("audit-wal")).ok();
    std::fs::rename(&from, &to).unwrap();
    let report = other.keystore.verify_audit().unwrap();
    assert!(!report.is_clean());
    // The process that had the old one open writes into the one that is there.
    other.keystore.describe_key(&by_id(key)).unwrap();
    other.keystore.flush_audit().unwrap();
    assert_eq!(other.keystore.verify_audit().unwrap().last, Some(15));
}

#[test]
fn an_export_is_checked_with_the_public_key_alone_and_every_change_shows() {
    let (f, _) = with_history();
    let good = export(&f.keystore, &AuditFilter::default());
    let report = check(&good, &f.keystore);
    assert!(report.is_clean() && !report.partial, "{report:?}");
    assert_eq!((report.records, report.signed_until), (13, Some(13)));
    let lines: Vec<&str> = good.lines().collect();
    let without = |skip: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != skip);
        kept.map(|(_, line)| *line).collect::<Vec<_>>().join("\n")
    };
    for (what, bad) in [
        ("a record is missing", without(4)),
        ("the first record is missing", without(1)),
        ("the anchor is missing", without(0)),
        ("the last record is missing", without(13)),
        ("a result was changed", good.replacen("DisabledException", "Success", 1)),
        (
            "a member was added",
            good.replacen("\"source\":\"cli\"", "\"source\":\"cli\",\"x\":1", 1),
        ),
        ("two records changed places", {
            let mut moved = lines.clone();
            moved.swap(4, 5);
            moved.join("\n")
        }),
        ("something else", format!("{good}\nhello")),
        ("the last line is missing", without(15)),
        (
            "it is said to be of chosen records",
            good.replacen("{\"anchor\":{", "{\"anchor\":{\"partial\":true,", 1),
        ),
    ] {
        assert!(!check(&bad, &f.keystore).is_clean(), "{what}");
    }
    let other = Fixture::new();
    assert!(!check(&good, &other.keystore).is_clean(), "the key of another keystore");
}

/// An export whose chain was made anew, or was wholly invented, was intact, as long as no line was
/// there that is signed.
#[test]
fn regression_an_export_that_nobody_signed_is_not_intact() {
    let (f, _) = with_history();
    let good = export(&f.keystore, &AuditFilter::default());
    let (mut hash, mut lines) = (String::new(), Vec::new());
    for line in good.lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(anchor) = line.get("anchor") {
            hash = anchor["hash"].as_str().unwrap().to_owned();
        } else if let Some(record) = line.get_mut("record") {
            let principal = &mut record["event"]["principal"];
            *principal = "arn:aws:iam::000000000000:user/mallory".into();
            record["previous"] = hash.into();
            hash = next_hash(record);
            record["hash"] = hash.clone().into();
        } else {
            continue;
        }
        lines.push(line.to_string());
    }
    let forged = lines.join("\n");
    assert!(!check(&forged, &f.keystore).is_clean(), "nothing is signed");
    let end = good.lines().last().unwrap();
    assert!(!check(&format!("{forged}\n{end}"), &f.keystore).is_clean(), "something else is");
    let anchor_and_end = format!("{}\n{end}", good.lines().next().unwrap());
    assert!(!check(&anchor_and_end, &f.keystore).is_clean());
    assert!(check(&good, &f.keystore).is_clean());
}

/// The hash of a record that follows the one it names.
fn next_hash(record: &serde_json::Value) -> String {
    let previous = record["previous"].as_str().unwrap();
    let byte = |at| u8::from_str_radix(&previous[at..at + 2], 16).unwrap();
    let previous: Vec<u8> = (0..64).step_by(2).map(byte).collect();
    let number = record["seq"].as_u64().unwrap().to_be_bytes();
    let event = record["event"].to_string();
    let hash = kmsfs::crypto::hash::sha256(&[&previous, &number, event.as_bytes()]);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_export_of_chosen_records_is_known_to_be_one() {
    let (f, _) = with_history();
    let chosen = export(&f.keystore, &of("Encrypt"));
    let report = check(&chosen, &f.keystore);
    assert!(report.is_clean() && report.partial, "{report:?}");
    assert_eq!(report.records, 6);
    let forged = chosen.replacen("DisabledException", "Success", 1);
    assert!(!check(&forged, &f.keystore).is_clean());
    let without_the_first: Vec<&str> =
        chosen.lines().filter(|l| !l.contains("\"seq\":2,")).collect();
    assert!(!check(&without_the_first.join("\n"), &f.keystore).is_clean());
}

#[test]
fn pruned_records_are_gone_and_the_rest_is_still_whole() {
    let f = Fixture::new();
    let at = |days| f.keystore.acting_for(Caller { at: Some(day(days)), ..Caller::owner() });
    let key = at(0).create_key(Default::default(), day(0)).unwrap().key_id;
    for days in 0..10 {
        at(days).describe_key(&by_id(key)).unwrap();
    }
    f.keystore.flush_audit().unwrap();
    assert_eq!(f.keystore.prunable_audit(day(4).into()).unwrap(), 5);
    let pruned = f.keystore.prune_audit(day(4).into(), day(10)).unwrap();
    assert_eq!((pruned.removed, pruned.until), (5, Some(5)));
    let report = f.keystore.verify_audit().unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.first, report.records), (Some(6), 7));
    let written = records(&f.keystore, &of("kmsfs:PruneAudit"));
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].event.count, 5);
    let exported = export(&f.keystore, &AuditFilter::default());
    assert!(check(&exported, &f.keystore).is_clean());
    // Whoever cuts more off cannot sign the new beginning.
    log_sql(
        &f,
        "UPDATE anchor SET seq = 6, hash = (SELECT hash FROM record WHERE seq = 6);
        DELETE FROM record WHERE seq = 6",
    );
    assert!(!f.keystore.verify_audit().unwrap().is_clean());
}

#[test]
fn opens_of_a_file_are_counted_together_and_so_are_refusals_after_the_first() {
    let f = Fixture::new();
    let key = f.key();
    let open = |file| FileOpen {
        action: Action::Decrypt,
        key,
        material: None,
        file: Some(FileId::from_bytes([file; 16])),
    };
    let user = f.keystore.acting_for(Caller::on_mount(1000, vec![1000]));
    for _ in 0..50 {
        user.record_open(&open(1)).unwrap();
    }
    user.record_open(&open(2)).unwrap();
    f.keystore.acting_for(Caller::on_mount(1001, vec![])).record_open(&open(1)).unwrap();
    let refused = kmsfs::keystore::KeystoreError::Disabled(key);
    for _ in 0..500 {
        user.record_refused_open(&open(1), &refused).unwrap();
    }
    let found = records(&f.keystore, &of("Decrypt"));
    let counts: BTreeSet<(u64, &str)> =
        found.iter().map(|record| (record.event.count, record.event.result.as_ref())).collect();
    let refusals = [(1, "DisabledException"), (499, "DisabledException")];
    let opens = [(1, "Success"), (50, "Success")];
    assert_eq!(counts, refusals.into_iter().chain(opens).collect());
    assert_eq!(found.len(), 5);
    let of_user = AuditFilter { principal: Some("unix/1001".into()), ..of("Decrypt") };
    assert_eq!(records(&f.keystore, &of_user).len(), 1);
    let event = &found.iter().find(|record| record.event.count == 50).unwrap().event;
    assert!(event.last_time.unwrap() >= event.time);
    assert_eq!((event.source.as_ref(), event.file.is_some()), ("mount", true));
}

#[test]
fn the_last_use_of_a_key_is_known() {
    let f = Fixture::new();
    let key = f.key();
    let unused = f.keystore.get_key_last_usage(key).unwrap();
    assert_eq!(unused.key_last_usage, kmsfs::keystore::audit::LastUsage::default());
    assert_eq!(unused.tracking_start_date, unused.key_creation_date);
    let caller = Caller { request_id: Some("r1".into()), at: Some(day(5)), ..Caller::owner() };
    let context = EncryptionContext::new();
    let user = f.keystore.acting_for(caller);
    let blob = user.encrypt(&by_id(key), b"x", &context).unwrap();
    f.keystore.describe_key(&by_id(key)).unwrap();
    let used = f.keystore.get_key_last_usage(key).unwrap().key_last_usage;
    assert_eq!(used.operation.as_deref(), Some("Encrypt"));
    assert_eq!((used.kms_request_id.as_deref(), used.timestamp), (Some("r1"), Some(day(5).into())));
    let other = f.key();
    user.re_encrypt(&blob, &context, &by_id(other), &context).unwrap();
    f.keystore.flush_audit().unwrap();
    for key in [key, other] {
        let used = f.reopen().get_key_last_usage(key).unwrap().key_last_usage;
        assert_eq!(used.operation.as_deref(), Some("ReEncrypt"));
    }
}

#[test]
fn the_log_is_private_and_says_nothing_in_the_clear() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    let key = f.key();
    let context = EncryptionContext::new().with("patient", "Erika Mustermann");
    f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    f.keystore.audit_checkpoint(day(0)).unwrap();
    let mut seen = 0;
    for name in ["store.db.audit", "store.db.audit-wal"] {
        let path = f.dir.join(name);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        seen += 1;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        for secret in ["patient", "Mustermann", "Encrypt", "root", &key.to_string()] {
            assert!(!contains(&bytes, secret.as_bytes()), "{name} shows {secret}");
        }
    }
    assert!(seen > 0);
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_required_log_that_cannot_be_written_refuses_everything_and_changes_nothing() {
    let f = Fixture::new();
    let key = f.key();
    let context = EncryptionContext::new();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    let other = f.reopen();
    assert_eq!(other.audit_mode(), AuditMode::Required);
    let blob = f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    let written = all(&other);
    assert!(written.iter().any(|record| record.event.operation == "Encrypt"), "durable by then");
    // Something else stands in its place: it can be neither opened nor made.
    let (log, aside) = (f.dir.join("store.db.audit"), f.dir.join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    for refused in [
        f.keystore.decrypt(&blob, &context, None).map(drop),
        f.keystore.encrypt(&by_id(key), b"x", &context).map(drop),
        f.keystore.disable_key(&by_id(key)).map(drop),
        f.keystore.set_audit_mode(AuditMode::BestEffort),
        f.keystore.record_open(&FileOpen {
            action: Action::Decrypt,
            key,
            material: None,
            file: Some(FileId::from_bytes([1; 16])),
        }),
    ] {
        let error = refused.unwrap_err();
        assert_eq!(error.aws_name(), "KMSInternalException");
        assert!(error.to_string().starts_with("the audit log cannot be written"), "{error}");
    }
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    f.keystore.decrypt(&blob, &context, None).unwrap();
    assert_eq!(f.keystore.audit_mode(), AuditMode::Required);
    let lost = records(&f.keystore, &of("kmsfs:AuditGap"));
    assert_eq!(lost.iter().map(|record| record.event.count).sum::<u64>(), 5);
    assert!(f.keystore.verify_audit().unwrap().is_clean());
}

#[test]
fn changes_are_announced_in_a_required_log() {
    let f = Fixture::new();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    let key = f.key();
    assert_eq!(results(&f.keystore, "CreateKey"), ["Attempt", "Success"]);
    f.keystore.describe_key(&by_id(key)).unwrap();
    assert_eq!(records(&f.keystore, &of("DescribeKey")).len(), 1);
    // It is named like an operation that reads, and stores a key.
    let request = CreateKey { origin: Some(Origin::External), ..CreateKey::default() };
    let imported = f.keystore.create_key(request, day(0)).unwrap().key_id;
    let (algorithm, spec) = (WrappingAlgorithm::RsaesOaepSha256, WrappingKeySpec::Rsa2048);
    f.keystore.get_parameters_for_import(&by_id(imported), algorithm, spec, day(0)).unwrap();
    assert_eq!(results(&f.keystore, "GetParametersForImport"), ["Attempt", "Success"]);
    f.keystore.create_transfer_key(day(0)).unwrap();
    assert_eq!(results(&f.keystore, "kmsfs:CreateTransferKey"), ["Attempt", "Success"]);
}

fn results(keystore: &Keystore, operation: &str) -> Vec<String> {
    let found = records(keystore, &of(operation)).into_iter();
    found.map(|record| record.event.result.into_owned()).collect()
}

/// What the keystore does by date was done first, and then it was tried to write that down.
#[test]
fn what_is_done_by_date_is_announced_in_a_required_log_too() {
    let f = Fixture::new();
    let (rotates, goes) = (f.key(), f.key());
    f.keystore.enable_key_rotation(&by_id(rotates), Some(90), day(0)).unwrap();
    f.keystore.schedule_key_deletion(goes, Some(7), day(0)).unwrap();
    let grant = CreateGrant {
        grantee: "arn:aws:iam::000000000000:user/unix/1000".into(),
        operations: vec![GrantOperation::Decrypt],
        expires: Some(day(1)),
        ..CreateGrant::default()
    };
    f.keystore.create_grant(&by_id(rotates), &grant, day(0)).unwrap();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    let (log, aside) = (f.dir.join("store.db.audit"), f.dir.join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    let now = day(100);
    f.keystore.run_due_rotations(now).unwrap_err();
    f.keystore.drop_expired_grants(day(1)).unwrap_err();
    f.keystore.delete_expired(now, ClockTrust::Confirmed).unwrap_err();
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    assert_eq!(f.keystore.list_key_rotations(&by_id(rotates)).unwrap().len(), 1);
    assert_eq!(f.keystore.list_keys().unwrap().len(), 2);
    assert_eq!(f.keystore.run_due_rotations(now).unwrap().len(), 1);
    assert_eq!(f.keystore.drop_expired_grants(day(1)).unwrap(), 1);
    assert_eq!(f.keystore.delete_expired(now, ClockTrust::Confirmed).unwrap().deleted, [goes]);
    for operation in ["RotateKey", "kmsfs:DropExpiredGrants", "DeleteKey"] {
        assert_eq!(results(&f.keystore, operation), ["Attempt", "Success"], "{operation}");
    }
    assert_eq!(f.keystore.drop_expired_grants(day(1)).unwrap(), 0);
    assert_eq!(results(&f.keystore, "kmsfs:DropExpiredGrants").len(), 2, "nothing was there to do");
}

#[test]
fn without_the_requirement_operations_go_on_and_the_loss_is_written_down() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.flush_audit().unwrap();
    let (log, aside) = (f.dir.join("store.db.audit"), f.dir.join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::create_dir(&log).unwrap();
    f.keystore.describe_key(&by_id(key)).unwrap();
    f.keystore.flush_audit().unwrap_err();
    std::fs::remove_dir(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    // It was kept meanwhile.
    f.keystore.flush_audit().unwrap();
    assert_eq!(records(&f.keystore, &of("DescribeKey")).len(), 1);
}

const DIR: &str = "KMSFS_TEST_AUDIT_DIR";

/// Not a test: the other process. It encrypts until it is killed.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn child_that_encrypts() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let keystore =
        Keystore::open(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key"))).unwrap();
    let key = keystore.list_keys().unwrap()[0].key_id;
    loop {
        let caller =
            Caller { request_id: Some(format!("child-{}", std::process::id())), ..Caller::owner() };
        keystore.acting_for(caller).encrypt(&by_id(key), b"x", &EncryptionContext::new()).unwrap();
        println!("did one");
    }
}

#[test]
fn processes_write_at_once_die_by_kill_9_and_leave_a_whole_log() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::child_that_encrypts", "--ignored", "--nocapture"])
            .env(DIR, f.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = lines.by_ref().map_while(Result::ok).filter(|line| line.contains("did one"));
        let mut count = told.by_ref().take(5).count();
        for _ in 0..20 {
            f.keystore.encrypt(&by_id(key), b"x", &EncryptionContext::new()).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        count += told.count();
        let id = format!("child-{}", child.id());
        let written = records(&f.keystore, &of("Encrypt"));
        let written = written.iter().filter(|record| record.event.request_id == id).count();
        assert!(written >= count, "{written} records of {count} answers");
        let report = f.keystore.verify_audit().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn times_are_read_as_they_are_written() {
    let time: EventTime = "2026-11-23T04:00:00.123Z".parse().unwrap();
    assert_eq!(time.to_string(), "2026-11-23T04:00:00.123Z");
    assert!("yesterday".parse::<EventTime>().is_err());
}
