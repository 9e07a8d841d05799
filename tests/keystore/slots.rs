//! Ways to unlock, and the last one that stays.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use kmsfs::keystore::{CREDENTIAL, Keystore, SlotId, SlotKind, Unlock, create_key_file};
use zeroize::Zeroizing;

use crate::fixture::{Fixture, day};

fn phrase(text: &str) -> Unlock {
    Unlock::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
}

#[test]
fn every_kind_of_slot_opens_the_same_keys() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.add_slot(&phrase("correct horse"), day(1)).unwrap();
    let credentials = f.dir.join("credentials");
    fs::create_dir(&credentials).unwrap();
    create_key_file(&credentials.join(CREDENTIAL)).unwrap();
    let credential = Unlock::Credentials(credentials);
    f.keystore.add_slot(&credential, day(2)).unwrap();
    for unlock in [f.unlock(), phrase("correct horse"), credential] {
        Keystore::open(&f.path(), &unlock).unwrap().key_state(key).unwrap();
    }
    let kinds: Vec<_> = f.keystore.list_slots().unwrap().iter().map(|slot| slot.kind).collect();
    assert_eq!(kinds, [SlotKind::KeyFile, SlotKind::Passphrase, SlotKind::Credential]);
    assert_eq!(
        Keystore::slots_in_words(&f.path()).unwrap(),
        ["slot 1 (key file)", "slot 2 (passphrase)", "slot 3 (credential)"]
    );
}

#[test]
fn a_credential_opens_the_slot_of_the_key_file_with_the_same_bytes() {
    let f = Fixture::new();
    let credentials = f.dir.join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::copy(f.dir.join("key"), credentials.join(CREDENTIAL)).unwrap();
    // systemd's access lists show as group bits.
    let mode = fs::Permissions::from_mode(0o440);
    fs::set_permissions(credentials.join(CREDENTIAL), mode).unwrap();
    Keystore::open(&f.path(), &Unlock::Credentials(credentials)).unwrap();
}

#[test]
fn the_last_slot_stays_and_a_removed_one_opens_no_more() {
    let f = Fixture::new();
    let first = f.keystore.list_slots().unwrap()[0].id;
    let refused = f.keystore.remove_slot(first).unwrap_err();
    assert!(refused.to_string().contains("add another one first"), "{refused}");
    create_key_file(&f.dir.join("second")).unwrap();
    let second = Unlock::KeyFile(f.dir.join("second"));
    f.keystore.add_slot(&second, day(0)).unwrap();
    f.keystore.remove_slot(first).unwrap();
    Keystore::open(&f.path(), &second).unwrap();
    let error = Keystore::open(&f.path(), &f.unlock()).unwrap_err();
    assert!(error.to_string().contains("slot 2 (key file)"), "{error}");
    let unknown = f.keystore.remove_slot(SlotId::from_number(77)).unwrap_err();
    assert_eq!(unknown.to_string(), "the keystore has no slot 77");
}

#[test]
fn a_passphrase_is_changed_in_one_step_and_slot_numbers_never_come_back() {
    let f = Fixture::new();
    let old = f.keystore.add_slot(&phrase("old"), day(0)).unwrap();
    let new = f.keystore.replace_slot(old, &phrase("new"), day(1)).unwrap();
    assert_ne!(old, new);
    assert_eq!(f.keystore.list_slots().unwrap().len(), 2);
    Keystore::open(&f.path(), &phrase("new")).unwrap();
    assert!(Keystore::open(&f.path(), &phrase("old")).is_err());
    assert!(f.keystore.verify().unwrap().is_clean());
}

#[test]
fn an_empty_passphrase_protects_nothing_and_is_refused() {
    let f = Fixture::new();
    let error = f.keystore.add_slot(&phrase(""), day(0)).unwrap_err();
    assert_eq!(error.to_string(), "a passphrase is not empty");
    assert!(f.keystore.export(&f.dir.join("export"), b"").is_err());
    assert!(Keystore::create(&f.dir.join("new.db"), &phrase(""), day(0)).is_err());
    assert!(!f.dir.join("new.db").exists());
}
