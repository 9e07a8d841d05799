//! Waiting periods, clocks, and bytes that are really gone.

use std::fs;
use std::time::Duration;

use kmsfs::id::VolumeId;
use kmsfs::keystore::{
    AliasName, ClockTrust, EncryptionContext, Expired, KeyState, KeystoreError, ReferenceReport,
};

use crate::fixture::{Fixture, by_id, day};

#[test]
fn the_window_has_bounds_and_a_default() {
    let f = Fixture::new();
    let key = f.key();
    for window in [6, 31] {
        let error = f.keystore.schedule_key_deletion(key, Some(window), day(0)).unwrap_err();
        assert_eq!(error.aws_name(), "ValidationException");
    }
    let scheduled = f.keystore.schedule_key_deletion(key, None, day(0)).unwrap();
    assert_eq!(scheduled.deletion_date, Some(day(30).into()));
    assert_eq!(
        (scheduled.pending_window_in_days, scheduled.key_state),
        (30, KeyState::PendingDeletion)
    );
}

#[test]
fn cancelling_leaves_the_key_disabled_and_its_data_readable() {
    let f = Fixture::new();
    let key = f.key();
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    f.keystore.cancel_key_deletion(&by_id(key)).unwrap();
    assert_eq!(f.keystore.key_state(key).unwrap(), KeyState::Disabled);
    f.keystore.delete_expired(day(8), ClockTrust::Confirmed).unwrap();
    f.keystore.enable_key(&by_id(key)).unwrap();
    f.keystore.decrypt(&blob, &context, None).unwrap();
}

#[test]
fn a_key_goes_when_its_days_have_passed_one_by_one() {
    let f = Fixture::new();
    let (doomed, kept) = (f.key(), f.key());
    let alias: AliasName = "alias/doomed".parse().unwrap();
    f.keystore.create_alias(&alias, doomed, day(0)).unwrap();
    f.keystore.schedule_key_deletion(doomed, Some(7), day(0)).unwrap();
    for today in 1..7 {
        let outcome = f.keystore.delete_expired(day(today), ClockTrust::Steps).unwrap();
        assert!(outcome.deleted.is_empty() && outcome.held.is_empty(), "day {today}");
    }
    let outcome = f.keystore.delete_expired(day(7), ClockTrust::Steps).unwrap();
    assert_eq!(outcome.deleted, [doomed]);
    assert_eq!(f.keystore.key_state(doomed).unwrap_err().aws_name(), "NotFoundException");
    assert!(f.keystore.list_aliases(None).unwrap().is_empty());
    assert_eq!(f.keystore.key_state(kept).unwrap(), KeyState::Enabled);
    assert!(f.reopen().verify().unwrap().is_clean());
}

#[test]
fn a_clock_that_leaps_destroys_nothing_until_it_is_confirmed() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    for _ in 0..2 {
        let outcome = f.keystore.delete_expired(day(400), ClockTrust::Steps).unwrap();
        assert_eq!((outcome.deleted.len(), outcome.held.as_slice()), (0, [key].as_slice()));
    }
    // Other work at the wrong time does not launder it.
    f.keystore.run_due_rotations(day(400)).unwrap();
    f.keystore.schedule_key_deletion(f.key(), Some(7), day(400)).unwrap();
    assert!(f.keystore.delete_expired(day(400), ClockTrust::Steps).unwrap().deleted.is_empty());
    let outcome = f.keystore.delete_expired(day(400), ClockTrust::Confirmed).unwrap();
    assert_eq!(outcome.deleted, [key]);
}

/// A daily timer is an hour late at times. One step of more than a day, and no deletion ever came.
#[test]
fn regression_a_key_goes_although_looks_are_a_day_and_an_hour_apart() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    let look = |number: u64| {
        let now = day(0) + Duration::from_secs(number * 25 * 3600);
        f.keystore.delete_expired(now, ClockTrust::Steps).unwrap()
    };
    for number in 1..7 {
        assert_eq!(look(number), Expired::default(), "{number}");
    }
    assert_eq!(look(7).deleted, [key]);
}

/// Time that nobody has seen pass is waited for once more, instead of a confirmation.
#[test]
fn regression_a_key_goes_after_its_days_without_those_that_the_machine_was_off() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    let look = |today| f.keystore.delete_expired(day(today), ClockTrust::Steps).unwrap();
    for today in [1, 2] {
        assert_eq!(look(today), Expired::default());
    }
    for today in 12..17 {
        assert_eq!(look(today), Expired { held: vec![key], ..Expired::default() }, "{today}");
    }
    assert_eq!(look(17).deleted, [key], "two days before, and five after");
}

#[test]
fn a_clock_that_is_wrong_for_a_while_brings_no_deletion_nearer() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    let look = |today| f.keystore.delete_expired(day(today), ClockTrust::Steps).unwrap().deleted;
    for today in [400, 1, 400, 1, 2, 400, 2, 3, 4, 5, 6, 7] {
        assert!(look(today).is_empty(), "{today}");
    }
    assert_eq!(look(8), [key], "seven days were seen to pass, from 1 to 2 and from 2 to 8");
    // Nor does one that stays wrong.
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(8)).unwrap();
    assert!((400..407).all(|today| look(today).is_empty()));
    assert_eq!(look(407), [key], "seven days have passed, whatever their names are");
}

#[test]
fn a_clock_that_is_set_back_takes_no_expiry_back() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.delete_expired(day(10), ClockTrust::Steps).unwrap();
    let scheduled = f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    assert_eq!(scheduled.deletion_date, Some(day(17).into()), "counted from the latest time seen");
    f.keystore.delete_expired(day(16), ClockTrust::Confirmed).unwrap();
    f.keystore.delete_expired(day(17), ClockTrust::Steps).unwrap();
    let error = f.keystore.key_state(key).unwrap_err();
    assert_eq!(error.aws_name(), "NotFoundException");
}

#[test]
fn a_time_accepted_by_mistake_is_replaced_by_a_confirmed_one() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.delete_expired(day(30_000), ClockTrust::Steps).unwrap();
    f.keystore.delete_expired(day(1), ClockTrust::Confirmed).unwrap();
    let scheduled = f.keystore.schedule_key_deletion(key, Some(7), day(1)).unwrap();
    assert_eq!(scheduled.deletion_date, Some(day(8).into()));
}

#[test]
fn deleted_material_is_gone_from_the_file_its_free_pages_and_the_wal() {
    let f = Fixture::new();
    let (doomed, _kept) = (f.key(), f.key());
    f.keystore.rotate_key_on_demand(&by_id(doomed), day(0)).unwrap();
    let other = f.reopen();
    other.key_state(doomed).unwrap();
    let planted = sealed_rows(&f, doomed);
    assert_eq!(planted.len(), 3, "one wrapping key, two materials");
    assert!(planted.iter().all(|bytes| raw_files(&f).iter().any(|raw| contains(raw, bytes))));
    f.keystore.schedule_key_deletion(doomed, Some(7), day(0)).unwrap();
    f.keystore.delete_expired(day(7), ClockTrust::Confirmed).unwrap();
    for bytes in &planted {
        assert!(raw_files(&f).iter().all(|raw| !contains(raw, bytes)));
    }
    other.poll_changes().unwrap();
    assert_eq!(other.key_state(doomed).unwrap_err().aws_name(), "NotFoundException");
}

#[test]
fn an_erasure_that_did_not_finish_is_finished_by_the_next_who_opens() {
    let f = Fixture::new();
    let doomed = f.key();
    let planted = sealed_rows(&f, doomed);
    f.keystore.schedule_key_deletion(doomed, Some(7), day(0)).unwrap();
    let reader = rusqlite::Connection::open(f.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM kms_key").unwrap();
    f.keystore.delete_expired(day(7), ClockTrust::Confirmed).unwrap();
    assert!(raw_files(&f).iter().any(|raw| contains(raw, &planted[0])), "the reader needs it");
    drop(reader);
    f.reopen();
    assert!(raw_files(&f).iter().all(|raw| !contains(raw, &planted[0])));
}

#[test]
fn material_retires_only_when_nothing_can_need_it() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&key, b"x", &context).unwrap();
    let old = blob.material_id();
    let new = f.keystore.rotate_key_on_demand(&key, day(1)).unwrap();
    let volume = VolumeId::from_bytes([9; 16]);
    f.keystore.register_volume(volume, f.dir.path()).unwrap();
    let scanned = ReferenceReport {
        scanned: [volume].into(),
        ciphertexts_checked: true,
        ..ReferenceReport::default()
    };
    let refuse = |material, report: &ReferenceReport, why: &str| {
        let error = f.keystore.retire_material(&key, material, report).unwrap_err();
        assert_eq!(error.aws_name(), "KMSInvalidStateException");
        assert!(error.to_string().contains(why), "{error}");
    };
    refuse(new, &scanned, "is the current one");
    refuse(old, &ReferenceReport::default(), "was not scanned");
    refuse(old, &ReferenceReport { references: 3, ..scanned.clone() }, "3 headers");
    refuse(old, &ReferenceReport { unreadable: 2, ..scanned.clone() }, "could not be read");
    refuse(old, &ReferenceReport { ciphertexts_checked: false, ..scanned.clone() }, "programs");
    f.keystore.retire_material(&key, old, &scanned).unwrap();
    let gone = f.keystore.decrypt(&blob, &context, None).unwrap_err();
    assert_eq!(gone.aws_name(), "InvalidCiphertextException");
    let again = f.keystore.retire_material(&key, old, &scanned).unwrap_err();
    assert!(again.to_string().contains("has no key material"), "{again}");
    assert_eq!(f.keystore.list_key_rotations(&key).unwrap().len(), 1);
}

/// It was destroyed in a file that nobody opens any more, and said so, while it stayed in the one that had
/// been put in its place.
#[test]
fn regression_nothing_is_retired_in_a_file_that_has_lost_its_name() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&key, b"x", &context).unwrap();
    f.keystore.rotate_key_on_demand(&key, day(1)).unwrap();
    let report = ReferenceReport { ciphertexts_checked: true, ..ReferenceReport::default() };
    let (name, aside) = (f.path(), f.dir.join("aside"));
    let retire = || f.keystore.retire_material(&key, blob.material_id(), &report);
    fs::rename(&name, &aside).unwrap();
    assert!(matches!(retire(), Err(KeystoreError::Missing(_))));
    fs::copy(&aside, &name).unwrap();
    let refused = retire().unwrap_err().to_string();
    assert!(refused.contains("another file has its name"), "{refused}");
    f.keystore.decrypt(&blob, &context, None).unwrap();
    fs::rename(&aside, &name).unwrap();
    retire().unwrap();
}

/// The sealed bytes that destroying a key must destroy.
fn sealed_rows(f: &Fixture, key: kmsfs::id::KeyId) -> Vec<Vec<u8>> {
    let connection = rusqlite::Connection::open(f.path()).unwrap();
    let mut query = connection
        .prepare(
            "SELECT sealed FROM wrapping_key WHERE id = ?1
             UNION ALL SELECT sealed FROM key_material WHERE key_id = ?1",
        )
        .unwrap();
    let rows = query.query_map([key.as_bytes()], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn raw_files(f: &Fixture) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(f.dir.path()).unwrap();
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// A run of 32 bytes is looked for: a row may be split over two pages.
fn contains(raw: &[u8], sealed: &[u8]) -> bool {
    raw.windows(32).any(|window| window == &sealed[..32] || window == &sealed[sealed.len() - 32..])
}
