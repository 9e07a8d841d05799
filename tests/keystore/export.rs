//! A keystore carried away in one file.

use std::fs;

use kmsfs::keystore::audit::AuditMode;
use kmsfs::keystore::{
    AliasName, ClockTrust, CreateAccessKey, EncryptionContext, KeyRef, Keystore, KeystoreError,
    ReferenceReport, Unlock, create_key_file,
};

use crate::fixture::{Fixture, by_id, day};

#[test]
fn an_export_becomes_the_same_keystore_elsewhere_with_a_slot_of_its_own() {
    let f = Fixture::new();
    let key = f.key();
    let alias: AliasName = "alias/a".parse().unwrap();
    f.keystore.create_alias(&alias, key, day(0)).unwrap();
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&by_id(key), b"x", &context).unwrap();
    f.keystore.rotate_key_on_demand(&by_id(key), day(1)).unwrap();
    f.keystore.schedule_key_deletion(f.key(), Some(7), day(1)).unwrap();
    f.keystore.export(&f.dir.join("export"), b"long passphrase").unwrap();

    create_key_file(&f.dir.join("other-key")).unwrap();
    let unlock = Unlock::KeyFile(f.dir.join("other-key"));
    let path = f.dir.join("elsewhere/store.db");
    let import = |passphrase: &[u8]| {
        Keystore::import(&f.dir.join("export"), passphrase, &path, &unlock, day(2))
    };
    let error = import(b"wrong").unwrap_err();
    assert!(error.to_string().contains("wrong passphrase"), "{error}");
    let imported = import(b"long passphrase").unwrap();
    assert!(imported.verify().unwrap().is_clean());
    assert_eq!(imported.list_keys().unwrap(), f.keystore.list_keys().unwrap());
    assert_eq!(imported.resolve(&KeyRef::Alias(alias)).unwrap(), key);
    assert_eq!(imported.decrypt(&blob, &context, None).unwrap().plaintext.expose(), b"x");
    assert_eq!(imported.list_slots().unwrap().len(), 1);
    assert!(matches!(import(b"long passphrase"), Err(KeystoreError::Exists(_))));
    // A waiting period goes on where it was.
    let expired = imported.delete_expired(day(8), ClockTrust::Confirmed).unwrap();
    assert_eq!(expired.deleted.len(), 1);
    drop(imported);
    Keystore::open(&path, &unlock).unwrap();
    assert!(Keystore::open(&path, &f.unlock()).is_err(), "the old key file does not come along");
}

#[test]
fn an_export_is_private_never_overwrites_and_shows_every_change() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    f.key();
    let file = f.dir.join("export");
    f.keystore.export(&file, b"p").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(f.keystore.export(&file, b"p"), Err(KeystoreError::Exists(_))));
    let good = fs::read(&file).unwrap();
    let import = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        Keystore::import(&file, b"p", &f.dir.join("new.db"), &f.unlock(), day(0))
            .unwrap_err()
            .to_string()
    };
    for (position, expected) in [
        (0, "not an export"),
        (8, "upgrade kmsfs"),
        (20, "wrong passphrase"),
        (25, "wrong passphrase"),
        (40, "wrong passphrase"),
        (good.len() - 1, "wrong passphrase"),
    ] {
        let mut changed = good.clone();
        changed[position] ^= 2;
        let error = import(&changed);
        assert!(error.contains(expected), "{position}: {error}");
    }
    // A forged cost is refused before any memory is taken.
    let mut greedy = good.clone();
    greedy[9..13].fill(0xff);
    assert!(import(&greedy).contains("not an export"));
    for len in [0, 8, 9, 36, 37, 60] {
        let error = import(&good[..len]);
        assert!(error.contains("not an export") || error.contains("wrong passphrase"), "{len}");
    }
    assert!(!f.dir.join("new.db").exists());
}

/// The copy forgot that hosts with an access key that is deleted may have vaults, so that it retired
/// their material unasked; and a clock that had leapt was steady again.
#[test]
fn regression_a_copy_remembers_what_the_keystore_did() {
    let f = Fixture::new();
    let request = CreateAccessKey { for_volumes: true, ..CreateAccessKey::default() };
    let access_key = f.keystore.create_access_key(&request, day(0)).unwrap().id;
    f.keystore.delete_access_key(&access_key).unwrap();
    f.keystore.set_audit_mode(AuditMode::Required).unwrap();
    f.keystore.export(&f.dir.join("export"), b"p").unwrap();
    let path = f.dir.join("copy.db");
    let copy = Keystore::import(&f.dir.join("export"), b"p", &path, &f.unlock(), day(0)).unwrap();
    assert!(copy.has_served_hosts().unwrap());
    assert_eq!(copy.audit_mode(), AuditMode::Required);
    assert_eq!(copy.last_export().unwrap(), None, "it has been exported never yet");
}

/// What the material had made since the export was taken, in the keystore or elsewhere, was forgotten:
/// the copy retired it unasked.
#[test]
fn regression_material_of_an_export_may_have_made_anything_since() {
    let f = Fixture::new();
    let key = by_id(f.key());
    f.keystore.export(&f.dir.join("export"), b"p").unwrap();
    let later = f.keystore.encrypt(&key, b"x", &EncryptionContext::new()).unwrap();
    let path = f.dir.join("copy.db");
    let copy = Keystore::import(&f.dir.join("export"), b"p", &path, &f.unlock(), day(0)).unwrap();
    let new = copy.rotate_key_on_demand(&key, day(1)).unwrap();
    let mut report = ReferenceReport::default();
    assert!(copy.retire_material(&key, later.material_id(), &report).is_err());
    report.other_hosts_checked = true;
    assert!(copy.retire_material(&key, later.material_id(), &report).is_err());
    report.ciphertexts_checked = true;
    copy.retire_material(&key, later.material_id(), &report).unwrap();
    copy.rotate_key_on_demand(&key, day(1)).unwrap();
    copy.retire_material(&key, new, &ReferenceReport::default()).unwrap();
}
