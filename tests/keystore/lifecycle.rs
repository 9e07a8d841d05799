//! Create, open, keys, aliases, and what they encrypt.

use kmsfs::keystore::{
    AliasName, Caller, CiphertextBlob, CreateKey, EncryptionContext, KeyRef, KeyState, Keystore,
    Unlock,
};
use zeroize::Zeroizing;

use crate::fixture::{Fixture, TempDir, by_id, day};

fn context() -> EncryptionContext {
    EncryptionContext::new().with("kmsfs:file", "42")
}

#[test]
fn a_data_key_is_unwrapped_by_another_handle_after_a_restart() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let made = f.volume().generate_data_key(&key, &context()).unwrap();
    assert_eq!(made.ciphertext.as_bytes().len(), 106);
    let stored = CiphertextBlob::parse(made.ciphertext.as_bytes()).unwrap();
    let reopened = f.reopen();
    assert_eq!(reopened.decrypt_data_key(&stored, &context()).unwrap(), made.plaintext);
}

#[test]
fn a_ciphertext_is_bound_to_context_key_and_every_byte() {
    let f = Fixture::new();
    let (key, other) = (by_id(f.key()), by_id(f.key()));
    let blob = f.volume().encrypt(&key, b"secret", &context()).unwrap();
    let name = |blob: &CiphertextBlob, context: &EncryptionContext, key: Option<&KeyRef>| {
        f.keystore.decrypt(blob, context, key).map_or_else(|e| e.aws_name(), |_| "ok")
    };
    assert_eq!(name(&blob, &context(), Some(&key)), "ok");
    assert_eq!(name(&blob, &context(), Some(&other)), "IncorrectKeyException");
    assert_eq!(name(&blob, &EncryptionContext::new(), None), "InvalidCiphertextException");
    for position in 0..blob.as_bytes().len() {
        let mut bytes = blob.as_bytes().to_vec();
        bytes[position] ^= 1;
        let verdict = match CiphertextBlob::parse(&bytes) {
            Ok(changed) => name(&changed, &context(), None),
            Err(error) => error.aws_name(),
        };
        let expected = if (2..18).contains(&position) {
            "NotFoundException"
        } else {
            "InvalidCiphertextException"
        };
        assert_eq!(verdict, expected, "byte {position}");
    }
}

#[test]
fn only_volumes_use_the_reserved_context() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let error = f.keystore.generate_data_key(&key, &context()).unwrap_err();
    assert_eq!(error.aws_name(), "AccessDeniedException");
    let plain = EncryptionContext::new().with("app", "x");
    let blob = f.keystore.encrypt(&key, b"x", &plain).unwrap();
    let moved = f.keystore.re_encrypt(&blob, &plain, &key, &context());
    assert_eq!(moved.unwrap_err().aws_name(), "AccessDeniedException");
}

#[test]
fn re_encrypt_moves_a_ciphertext_to_another_key_and_context() {
    let f = Fixture::new();
    let (from, to) = (by_id(f.key()), f.key());
    let blob = f.volume().encrypt(&from, b"secret", &context()).unwrap();
    let new = EncryptionContext::new();
    let moved = f.volume().re_encrypt(&blob, &context(), &by_id(to), &new).unwrap();
    let opened = f.keystore.decrypt(&moved, &new, None).unwrap();
    assert_eq!((opened.key, opened.plaintext.expose()), (to, b"secret".as_slice()));
}

#[test]
fn plaintexts_have_1_to_4096_bytes() {
    let f = Fixture::new();
    let key = by_id(f.key());
    for (len, fits) in [(0, false), (1, true), (4096, true), (4097, false)] {
        let blob = f.volume().encrypt(&key, &vec![7; len], &context());
        assert_eq!(blob.is_ok(), fits, "{len}");
        if let Ok(blob) = blob {
            let blob = CiphertextBlob::parse(blob.as_bytes()).unwrap();
            let opened = f.keystore.decrypt(&blob, &context(), None).unwrap();
            assert_eq!(opened.plaintext.expose(), vec![7; len]);
        }
    }
}

#[test]
fn a_disabled_key_refuses_at_once_and_an_enabled_one_works_again() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let blob = f.volume().encrypt(&key, b"x", &context()).unwrap();
    f.keystore.disable_key(&key).unwrap();
    let error = f.keystore.decrypt(&blob, &context(), None).unwrap_err();
    assert_eq!(error.aws_name(), "DisabledException");
    assert!(error.to_string().ends_with(" is disabled."), "{error}");
    f.keystore.enable_key(&key).unwrap();
    f.keystore.decrypt(&blob, &context(), None).unwrap();
}

#[test]
fn another_process_disabling_a_key_is_felt_after_a_poll() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let other = f.reopen();
    let blob = other.acting_for(Caller::service()).encrypt(&key, b"x", &context()).unwrap();
    assert!(!other.poll_changes().unwrap());
    f.keystore.disable_key(&key).unwrap();
    assert!(other.poll_changes().unwrap());
    assert!(!other.poll_changes().unwrap());
    let error = other.decrypt(&blob, &context(), None).unwrap_err();
    assert_eq!(error.aws_name(), "DisabledException");
    f.keystore.enable_key(&key).unwrap();
    other.poll_changes().unwrap();
    other.decrypt(&blob, &context(), None).unwrap();
}

#[test]
fn describe_and_list_show_what_was_made() {
    let f = Fixture::new();
    let tags = [("team".to_owned(), "a".to_owned())].into();
    let request = CreateKey { description: "payroll".to_owned(), tags, ..Default::default() };
    let made = f.keystore.create_key(request, day(3)).unwrap();
    let key = by_id(made.key_id);
    assert_eq!(f.keystore.describe_key(&key).unwrap(), made);
    assert_eq!(f.keystore.list_keys().unwrap(), vec![made.clone()]);
    assert_eq!((made.key_state, made.description.as_str()), (KeyState::Enabled, "payroll"));
    f.keystore.update_key_description(&key, "wages").unwrap();
    assert_eq!(f.keystore.describe_key(&key).unwrap().description, "wages");
    f.keystore.tag_resource(&key, [("env".to_owned(), "prod".to_owned())].into()).unwrap();
    f.keystore.untag_resource(&key, &["team", "never"]).unwrap();
    let tags = f.keystore.list_resource_tags(&key).unwrap();
    assert_eq!(tags, [("env".to_owned(), "prod".to_owned())].into());
}

#[test]
fn aliases_name_keys_and_move() {
    let f = Fixture::new();
    let (one, two) = (f.key(), f.key());
    let alias: AliasName = "alias/finance".parse().unwrap();
    f.keystore.create_alias(&alias, one, day(0)).unwrap();
    let again = f.keystore.create_alias(&alias, two, day(0)).unwrap_err();
    assert_eq!(again.aws_name(), "AlreadyExistsException");
    let named = KeyRef::Alias(alias.clone());
    assert_eq!(f.keystore.resolve(&named).unwrap(), one);
    f.keystore.update_alias(&alias, two, day(1)).unwrap();
    assert_eq!(f.keystore.resolve(&named).unwrap(), two);
    let listed = f.keystore.list_aliases(None).unwrap();
    assert_eq!((listed.len(), listed[0].target_key_id), (1, two));
    assert!(f.keystore.list_aliases(Some(&by_id(one))).unwrap().is_empty());
    f.keystore.delete_alias(&alias).unwrap();
    let gone = f.keystore.resolve(&named).unwrap_err();
    assert_eq!(gone.aws_name(), "NotFoundException");
    let arn = "arn:aws:kms:local:000000000000:alias/finance";
    assert_eq!(gone.to_string(), format!("Alias {arn} is not found."));
}

#[test]
fn the_default_key_is_made_once() {
    let f = Fixture::new();
    let key = f.keystore.ensure_default_key(day(0)).unwrap();
    assert_eq!(f.reopen().ensure_default_key(day(1)).unwrap(), key);
    assert_eq!(f.keystore.resolve(&AliasName::default_key().into()).unwrap(), key);
    assert_eq!(f.keystore.list_keys().unwrap().len(), 1);
}

#[test]
fn unknown_keys_are_told_by_arn() {
    let f = Fixture::new();
    let id = "11111111-2222-3333-4444-555555555555";
    let error = f.keystore.describe_key(&id.parse().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("Key 'arn:aws:kms:local:000000000000:key/{id}' does not exist")
    );
    let resolved = f.keystore.resolve(&id.parse().unwrap()).unwrap_err();
    assert_eq!(resolved.aws_name(), "NotFoundException");
}

#[test]
fn a_passphrase_opens_and_a_wrong_one_says_what_there_is() {
    let dir = TempDir::new();
    let path = dir.join("deep/down/store.db");
    let phrase = |text: &str| Unlock::Passphrase(Zeroizing::new(text.as_bytes().to_vec()));
    drop(Keystore::create(&path, &phrase("correct horse"), day(0)).unwrap());
    Keystore::open(&path, &phrase("correct horse")).unwrap();
    let error = Keystore::open(&path, &phrase("battery staple")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("the passphrase does not open"), "{text}");
    assert!(text.contains("slot 1 (passphrase)"), "{text}");
    assert!(!text.contains("battery"), "{text}");
}
