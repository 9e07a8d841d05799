//! Every operation in every state that a key of this keystore can reach.

use std::collections::BTreeMap;

use kmsfs::keystore::{
    AliasName, ClockTrust, EncryptionContext, KeyRef, KeyState, Keystore, KeystoreError,
    ReferenceReport,
};

use crate::fixture::{Fixture, by_id, day};

const OK: &str = "ok";
const OFF: &str = "DisabledException";
const BAD: &str = "KMSInvalidStateException";

fn verdict<T>(result: Result<T, KeystoreError>) -> &'static str {
    result.map_or_else(|error| error.aws_name(), |_| OK)
}

/// An operation on a key, and what it answers when the key is Enabled, Disabled, PendingDeletion.
type Case = (&'static str, fn(&Keystore, &KeyRef) -> &'static str, [&'static str; 3]);

const CASES: [Case; 19] = [
    ("GenerateDataKey", generate, [OK, OFF, BAD]),
    ("Encrypt", encrypt, [OK, OFF, BAD]),
    ("Decrypt", decrypt, [OK, OFF, BAD]),
    ("ReEncrypt", |k, key| re_encrypt(k, key), [OK, OFF, BAD]),
    ("DescribeKey", |k, key| verdict(k.describe_key(key)), [OK; 3]),
    ("ListResourceTags", |k, key| verdict(k.list_resource_tags(key)), [OK; 3]),
    ("ListAliases", |k, key| verdict(k.list_aliases(Some(key))), [OK; 3]),
    ("GetKeyRotationStatus", |k, key| verdict(k.get_key_rotation_status(key)), [OK; 3]),
    ("ListKeyRotations", |k, key| verdict(k.list_key_rotations(key)), [OK; 3]),
    ("EnableKey", |k, key| verdict(k.enable_key(key)), [OK, OK, BAD]),
    ("DisableKey", |k, key| verdict(k.disable_key(key)), [OK, OK, BAD]),
    ("TagResource", |k, key| verdict(k.tag_resource(key, BTreeMap::new())), [OK, OK, BAD]),
    ("UntagResource", |k, key| verdict(k.untag_resource(key, &[])), [OK, OK, BAD]),
    ("UpdateKeyDescription", |k, key| verdict(k.update_key_description(key, "")), [OK, OK, BAD]),
    ("CreateAlias", create_alias, [OK, OK, BAD]),
    (
        "EnableKeyRotation",
        |k, key| verdict(k.enable_key_rotation(key, None, day(0))),
        [OK, OFF, BAD],
    ),
    ("RotateKeyOnDemand", |k, key| verdict(k.rotate_key_on_demand(key, day(0))), [OK, OFF, BAD]),
    ("ScheduleKeyDeletion", schedule, [OK, OK, BAD]),
    ("CancelKeyDeletion", |k, key| verdict(k.cancel_key_deletion(key)), [BAD, BAD, OK]),
];

#[test]
fn every_operation_obeys_the_state_of_its_key() {
    for (name, operation, expected) in CASES {
        let states = [KeyState::Enabled, KeyState::Disabled, KeyState::PendingDeletion];
        for (state, expected) in states.into_iter().zip(expected) {
            let f = Fixture::new();
            let key = f.key();
            match state {
                KeyState::Disabled => f.keystore.disable_key(&by_id(key)).unwrap(),
                KeyState::PendingDeletion => {
                    f.keystore.schedule_key_deletion(key, None, day(0)).unwrap();
                }
                _ => {}
            }
            assert_eq!(f.keystore.key_state(key).unwrap(), state);
            assert_eq!(operation(&f.keystore, &by_id(key)), expected, "{name} in {state}");
            assert!(f.keystore.verify().unwrap().is_clean(), "{name} in {state}");
        }
    }
}

#[test]
fn nothing_works_on_a_key_that_was_deleted() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    f.keystore.delete_expired(day(7), ClockTrust::Confirmed).unwrap();
    for (name, operation, _) in CASES {
        if name != "Decrypt" && name != "ReEncrypt" {
            assert_eq!(operation(&f.keystore, &by_id(key)), "NotFoundException", "{name}");
        }
    }
    let retired = f.keystore.retire_material(
        &by_id(key),
        kmsfs::id::MaterialId::from_bytes([1; 16]),
        &ReferenceReport::default(),
    );
    assert_eq!(verdict(retired), "NotFoundException");
}

#[test]
fn operations_name_keys_by_alias_too_but_deletion_does_not() {
    let f = Fixture::new();
    let key = f.key();
    let alias: AliasName = "alias/a".parse().unwrap();
    f.keystore.create_alias(&alias, key, day(0)).unwrap();
    f.keystore.disable_key(&alias.clone().into()).unwrap();
    assert_eq!(f.keystore.describe_key(&alias.into()).unwrap().key_state, KeyState::Disabled);
}

fn generate(keystore: &Keystore, key: &KeyRef) -> &'static str {
    verdict(keystore.generate_data_key(key, &EncryptionContext::new()))
}

fn encrypt(keystore: &Keystore, key: &KeyRef) -> &'static str {
    verdict(keystore.encrypt(key, b"x", &EncryptionContext::new()))
}

/// The ciphertext is made while the key is enabled for a moment.
fn decrypt(keystore: &Keystore, key: &KeyRef) -> &'static str {
    let blob = ciphertext(keystore, key);
    verdict(keystore.decrypt(&blob, &EncryptionContext::new(), None))
}

fn re_encrypt(keystore: &Keystore, key: &KeyRef) -> &'static str {
    let blob = ciphertext(keystore, key);
    let context = EncryptionContext::new();
    let to = keystore.ensure_default_key(day(0)).unwrap();
    verdict(keystore.re_encrypt(&blob, &context, &by_id(to), &context))
}

fn ciphertext(keystore: &Keystore, key: &KeyRef) -> kmsfs::keystore::CiphertextBlob {
    let state = keystore.describe_key(key).unwrap().key_state;
    if state == KeyState::PendingDeletion {
        keystore.cancel_key_deletion(key).unwrap();
    }
    keystore.enable_key(key).unwrap();
    let blob = keystore.encrypt(key, b"x", &EncryptionContext::new()).unwrap();
    match state {
        KeyState::Disabled => keystore.disable_key(key).unwrap(),
        KeyState::PendingDeletion => {
            let id = keystore.resolve(key).unwrap();
            keystore.schedule_key_deletion(id, None, day(0)).unwrap();
        }
        _ => {}
    }
    blob
}

fn create_alias(keystore: &Keystore, key: &KeyRef) -> &'static str {
    let KeyRef::Id(key) = key else { panic!("cases name keys by id") };
    verdict(keystore.create_alias(&"alias/new".parse().unwrap(), *key, day(0)))
}

fn schedule(keystore: &Keystore, key: &KeyRef) -> &'static str {
    let KeyRef::Id(key) = key else { panic!("cases name keys by id") };
    verdict(keystore.schedule_key_deletion(*key, None, day(0)))
}
