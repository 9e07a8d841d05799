//! Access keys: made, used, switched off, removed.

use std::time::Duration;

use kmsfs::keystore::{AccessKeyStatus, Caller, CreateAccessKey, KeystoreError, Principal, Source};

use crate::fixture::{Fixture, day};

fn of(user: &str) -> CreateAccessKey {
    CreateAccessKey { user: Some(user.to_owned()), ..CreateAccessKey::default() }
}

fn verdict<T>(result: Result<T, KeystoreError>) -> &'static str {
    result.map_or_else(|error| error.aws_name(), |_| "ok")
}

#[test]
fn an_access_key_has_the_form_of_awss_and_tells_its_user() {
    let f = Fixture::new();
    let made = f.keystore.create_access_key(&of("ci"), day(0)).unwrap();
    assert!(made.id.starts_with("AKIA") && made.id.len() == 20, "{}", made.id);
    assert!(made.id.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b)));
    assert_eq!(made.secret.len(), 40);
    let login = f.reopen().access_key(&made.id).unwrap().unwrap();
    assert_eq!(login.principal, Principal::User("ci".to_owned()));
    assert_eq!(*login.secret, *made.secret);
    assert!(!login.volume_context);
    let root = CreateAccessKey { for_volumes: true, ..CreateAccessKey::default() };
    let root = f.keystore.create_access_key(&root, day(0)).unwrap();
    let login = f.keystore.access_key(&root.id).unwrap().unwrap();
    assert_eq!((login.principal, login.volume_context), (Principal::Root, true));
    assert!(f.keystore.access_key("AKIAAAAAAAAAAAAAAAAA").unwrap().is_none());
}

#[test]
fn the_secret_stands_nowhere_in_the_file() {
    let f = Fixture::new();
    let made = f.keystore.create_access_key(&of("ci"), day(0)).unwrap();
    let bytes = std::fs::read(f.checkpointed()).unwrap();
    for planted in [made.secret.as_bytes(), made.id.as_bytes(), b"\"ci\""] {
        assert!(!bytes.windows(planted.len()).any(|window| window == planted));
    }
}

#[test]
fn an_access_key_can_be_switched_off_and_on_and_removed() {
    let f = Fixture::new();
    let id = f.keystore.create_access_key(&of("ci"), day(0)).unwrap().id;
    let elsewhere = f.reopen();
    let works = |keystore: &kmsfs::keystore::Keystore| keystore.access_key(&id).unwrap().is_some();
    assert!(works(&elsewhere));
    f.keystore.update_access_key(&id, AccessKeyStatus::Inactive).unwrap();
    assert!(!works(&f.keystore));
    assert!(elsewhere.poll_changes().unwrap());
    assert!(!works(&elsewhere));
    f.keystore.update_access_key(&id, AccessKeyStatus::Active).unwrap();
    assert!(works(&f.keystore));
    f.keystore.delete_access_key(&id).unwrap();
    assert!(!works(&f.keystore));
    assert_eq!(verdict(f.keystore.delete_access_key(&id)), "NotFoundException");
}

#[test]
fn an_access_key_ends_when_it_was_to_end() {
    let f = Fixture::new();
    let request = CreateAccessKey { expires: Some(day(2)), ..of("ci") };
    let id = f.keystore.create_access_key(&request, day(0)).unwrap().id;
    let at = |time| f.keystore.acting_for(Caller { at: Some(time), ..Caller::owner() });
    assert!(at(day(1)).access_key(&id).unwrap().is_some());
    assert!(at(day(2)).access_key(&id).unwrap().is_none());
    assert_eq!(verdict(f.keystore.create_access_key(&request, day(2))), "ValidationException");
}

#[test]
fn last_use_is_noted_once_an_hour() {
    let f = Fixture::new();
    let id = f.keystore.create_access_key(&of("ci"), day(0)).unwrap().id;
    let last = || f.keystore.list_access_keys().unwrap()[0].last_used_date;
    assert_eq!(last(), None);
    f.keystore.note_access_key_use(&id, day(1)).unwrap();
    assert_eq!(last(), Some(day(1).into()));
    f.keystore.note_access_key_use(&id, day(1) + Duration::from_secs(3599)).unwrap();
    assert_eq!(last(), Some(day(1).into()));
    f.keystore.note_access_key_use(&id, day(1) + Duration::from_secs(3600)).unwrap();
    assert_eq!(last(), Some((day(1) + Duration::from_secs(3600)).into()));
}

#[test]
fn only_the_owner_and_root_make_access_keys_and_names_are_checked() {
    let f = Fixture::new();
    for (principal, expected) in [
        (Principal::Owner, "ok"),
        (Principal::Root, "ok"),
        (Principal::User("ci".into()), "AccessDeniedException"),
        (Principal::Unix { uid: 0 }, "AccessDeniedException"),
    ] {
        let keystore = f.keystore.acting_for(Caller::new(principal, Source::Socket));
        assert_eq!(verdict(keystore.create_access_key(&of("ci"), day(0))), expected);
    }
    for name in ["", "unix/0", "a b", "ä", &"x".repeat(65)] {
        let made = f.keystore.create_access_key(&of(name), day(0));
        assert_eq!(verdict(made), "ValidationException", "{name}");
    }
}
