//! Changes on a disk that is nearly full: done, or not done, and never one that is told as the other.

use kmsfs::keystore::audit::AuditMode;
use kmsfs::keystore::{
    CreateAccessKey, CreateKey, KeyState, Keystore, KeystoreError, Unlock, create_key_file,
};

use crate::audit_full::SmallDisk;
use crate::fixture::{by_id, day};

/// Room for nothing, for a commit, for the rewriting of the file that follows it. Units: KiB.
const ROOM: std::ops::Range<u64> = 0..30;
const STEP: u64 = 4;

/// A keystore of which somebody may rewrite more than there is room for.
fn filled(free: u64, prepare: impl FnOnce(&SmallDisk, &Keystore)) -> (SmallDisk, Keystore) {
    let disk = SmallDisk::new("4m");
    let keystore = disk.open();
    for _ in 0..3 {
        keystore.create_key(CreateKey::default(), day(0)).unwrap();
    }
    prepare(&disk, &keystore);
    keystore.flush_audit().unwrap();
    disk.fill_but(free * STEP);
    (disk, keystore)
}

fn opens(disk: &SmallDisk, name: &str) -> bool {
    Keystore::open(&disk.0.join("store.db"), &Unlock::KeyFile(disk.0.join(name))).is_ok()
}

/// "Nothing was changed" was said of a slot that had been replaced: the bytes of the old one could
/// not be scrubbed. Whoever believed it had no key file any more.
#[test]
fn regression_a_slot_that_was_replaced_on_a_full_disk_is_told_as_replaced() {
    let mut done = 0;
    for free in ROOM {
        let (disk, keystore) = filled(free, |disk, _| {
            create_key_file(&disk.0.join("second")).unwrap();
        });
        let slot = keystore.list_slots().unwrap()[0].id;
        let second = Unlock::KeyFile(disk.0.join("second"));
        let replaced = keystore.replace_slot(slot, &second, day(1));
        drop(keystore);
        disk.make_room();
        let now = (opens(&disk, "key"), opens(&disk, "second"));
        assert_eq!(now, (replaced.is_err(), replaced.is_ok()), "{} KiB: {replaced:?}", free * STEP);
        done += u32::from(replaced.is_ok());
    }
    assert!(done > 0, "there was room for a commit");
}

#[test]
fn regression_a_slot_that_was_removed_on_a_full_disk_is_told_as_removed() {
    for free in ROOM {
        let (disk, keystore) = filled(free, |disk, keystore| {
            create_key_file(&disk.0.join("second")).unwrap();
            keystore.add_slot(&Unlock::KeyFile(disk.0.join("second")), day(0)).unwrap();
        });
        let slot = keystore.list_slots().unwrap()[1].id;
        let removed = keystore.remove_slot(slot);
        drop(keystore);
        disk.make_room();
        assert_eq!(opens(&disk, "second"), removed.is_err(), "{} KiB: {removed:?}", free * STEP);
    }
}

#[test]
fn regression_an_access_key_that_was_deleted_on_a_full_disk_is_told_as_deleted() {
    for free in ROOM {
        let (disk, keystore) = filled(free, |_, keystore| {
            keystore.create_access_key(&CreateAccessKey::default(), day(0)).unwrap();
        });
        let id = keystore.list_access_keys().unwrap()[0].access_key_id.clone();
        let deleted = keystore.delete_access_key(&id);
        drop(keystore);
        disk.make_room();
        let left = disk.open().list_access_keys().unwrap().len();
        assert_eq!(left, usize::from(deleted.is_err()), "{} KiB: {deleted:?}", free * STEP);
    }
}

/// What could not be scrubbed is scrubbed as soon as there is room.
#[test]
fn what_stays_of_a_removed_slot_on_a_full_disk_goes_at_the_next_opening() {
    let (disk, keystore) = filled(16, |disk, _| {
        create_key_file(&disk.0.join("second")).unwrap();
    });
    let slot = keystore.list_slots().unwrap()[0].id;
    let second = Unlock::KeyFile(disk.0.join("second"));
    keystore.replace_slot(slot, &second, day(1)).unwrap();
    drop(keystore);
    disk.make_room();
    let path = disk.0.join("store.db");
    drop(Keystore::open(&path, &second).unwrap());
    let free_pages: i64 = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA freelist_count", [], |row| row.get(0))
        .unwrap();
    assert_eq!(free_pages, 0);
}

/// A required log that takes the announcement of a change and not its end: the error says that the
/// change was made, and only then.
#[test]
fn a_change_whose_record_has_no_room_is_not_told_as_refused() {
    for free in ROOM {
        let (disk, keystore) = filled(free, |_, keystore| {
            keystore.set_audit_mode(AuditMode::Required).unwrap();
        });
        let key = keystore.list_keys().map(|keys| keys[0].key_id);
        let Ok(key) = key else { continue };
        let disabled = keystore.disable_key(&by_id(key));
        drop(keystore);
        disk.make_room();
        let state = disk.open().describe_key(&by_id(key)).unwrap().key_state;
        let done = matches!(disabled, Ok(_) | Err(KeystoreError::AuditUnfinished(_)));
        assert_eq!(state == KeyState::Disabled, done, "{} KiB: {disabled:?}", free * STEP);
    }
}
