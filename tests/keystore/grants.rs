//! Grants: made, used, listed, retired, revoked, and gone when they end.

use kmsfs::id::KeyId;
use kmsfs::keystore::{
    Caller, ClockTrust, Constraints, CreateGrant, CreateKey, EncryptionContext, GrantEntry,
    GrantFilter, GrantOperation, KeyRef, KeySpec, KeyUsage, Keystore, KeystoreError, Principal,
    Source,
};

use crate::fixture::{Fixture, by_id, day};

const ALICE: &str = "arn:aws:iam::000000000000:user/unix/1000";
const BOB: &str = "arn:aws:iam::000000000000:user/unix/1001";
const DENIED: &str = "AccessDeniedException";

fn unix(keystore: &Keystore, uid: u32) -> Keystore {
    let caller = Caller::new(Principal::Unix { uid }, Source::Socket);
    keystore.acting_for(Caller { at: Some(day(0)), ..caller })
}

fn verdict<T>(result: Result<T, KeystoreError>) -> &'static str {
    result.map_or_else(|error| error.aws_name(), |_| "ok")
}

fn to_alice(operations: &[GrantOperation]) -> CreateGrant {
    CreateGrant {
        grantee: ALICE.to_owned(),
        operations: operations.to_vec(),
        ..CreateGrant::default()
    }
}

fn encrypt(keystore: &Keystore, key: &KeyRef) -> &'static str {
    verdict(keystore.encrypt(key, b"x", &context(&[("a", "1")])))
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    pairs.iter().copied().collect()
}

fn listed(keystore: &Keystore, key: &KeyRef) -> Vec<GrantEntry> {
    keystore.list_grants(key, &GrantFilter::default()).unwrap()
}

#[test]
fn a_grant_allows_its_operations_until_it_is_revoked() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let (alice, elsewhere) = (unix(&f.keystore, 1000), f.reopen());
    assert_eq!(encrypt(&alice, &key), DENIED);
    let grant = to_alice(&[GrantOperation::Encrypt]);
    let made = f.keystore.create_grant(&key, &grant, day(0)).unwrap();
    assert_eq!(encrypt(&alice, &key), "ok");
    assert_eq!(encrypt(&unix(&f.keystore, 1001), &key), DENIED);
    assert_eq!(verdict(alice.generate_data_key(&key, &context(&[]))), DENIED);
    assert_eq!(encrypt(&unix(&elsewhere, 1000), &key), "ok");
    f.keystore.revoke_grant(&key, made.id).unwrap();
    assert_eq!(encrypt(&alice, &key), DENIED);
    assert!(elsewhere.poll_changes().unwrap());
    assert_eq!(encrypt(&unix(&elsewhere, 1000), &key), DENIED);
    let error = f.keystore.revoke_grant(&key, made.id).unwrap_err();
    assert_eq!(error.to_string(), format!("Grant ID {} not found", made.id));
}

#[test]
fn constraints_bind_a_grant_to_encryption_contexts() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let constraints = Constraints { equals: None, subset: Some(context(&[("a", "1")])) };
    let grant = CreateGrant {
        constraints,
        ..to_alice(&[GrantOperation::Encrypt, GrantOperation::DescribeKey])
    };
    f.keystore.create_grant(&key, &grant, day(0)).unwrap();
    let alice = unix(&f.keystore, 1000);
    let with = |pairs| verdict(alice.encrypt(&key, b"x", &context(pairs)));
    assert_eq!(with(&[("a", "1"), ("b", "2")]), "ok");
    assert_eq!(with(&[("a", "2")]), DENIED);
    assert_eq!(with(&[]), DENIED);
    assert_eq!(verdict(alice.describe_key(&key)), "ok");
}

/// As imported material, a grant was gone after a moment at a wrong time.
#[test]
fn regression_a_clock_that_leaps_drops_no_grants() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let grant = CreateGrant { expires: Some(day(300)), ..to_alice(&[GrantOperation::Encrypt]) };
    f.keystore.create_grant(&key, &grant, day(0)).unwrap();
    for today in [400, 400, 1] {
        assert_eq!(f.keystore.drop_expired_grants(day(today)).unwrap(), 0);
        f.keystore.delete_expired(day(today), ClockTrust::Steps).unwrap();
    }
    assert_eq!(listed(&f.keystore, &key).len(), 1);
    f.keystore.delete_expired(day(400), ClockTrust::Confirmed).unwrap();
    assert_eq!(f.keystore.drop_expired_grants(day(400)).unwrap(), 1);
}

#[test]
fn a_grant_ends_by_itself_and_is_swept_away() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let grant = CreateGrant { expires: Some(day(1)), ..to_alice(&[GrantOperation::Encrypt]) };
    f.keystore.create_grant(&key, &grant, day(0)).unwrap();
    f.keystore.create_grant(&key, &to_alice(&[GrantOperation::Decrypt]), day(0)).unwrap();
    let at = |time| {
        let caller = Caller::new(Principal::Unix { uid: 1000 }, Source::Socket);
        f.keystore.acting_for(Caller { at: Some(time), ..caller })
    };
    assert_eq!(encrypt(&at(day(0)), &key), "ok");
    assert_eq!(encrypt(&at(day(1)), &key), DENIED);
    let owner = f.keystore.acting_for(Caller { at: Some(day(1)), ..Caller::owner() });
    assert_eq!(listed(&owner, &key).len(), 1);
    assert_eq!(f.keystore.drop_expired_grants(day(0)).unwrap(), 0);
    assert_eq!(f.keystore.drop_expired_grants(day(1)).unwrap(), 1);
    assert_eq!(encrypt(&at(day(0)), &key), DENIED, "a clock that goes back does not revive it");
}

#[test]
fn the_same_named_request_makes_one_grant() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let named = CreateGrant { name: Some("n".into()), ..to_alice(&[GrantOperation::Encrypt]) };
    let first = f.keystore.create_grant(&key, &named, day(0)).unwrap();
    let second = f.keystore.create_grant(&key, &named, day(1)).unwrap();
    assert_eq!(first.id, second.id);
    assert_ne!(first.token, second.token);
    let other = CreateGrant { name: Some("n".into()), ..to_alice(&[GrantOperation::Decrypt]) };
    assert_ne!(f.keystore.create_grant(&key, &other, day(1)).unwrap().id, first.id);
    let unnamed = to_alice(&[GrantOperation::Encrypt]);
    let third = f.keystore.create_grant(&key, &unnamed, day(1)).unwrap();
    assert_ne!(f.keystore.create_grant(&key, &unnamed, day(1)).unwrap().id, third.id);
}

#[test]
fn grants_are_listed_by_id_by_grantee_and_by_who_may_retire_them() {
    let f = Fixture::new();
    let (key, other) = (by_id(f.key()), by_id(f.key()));
    let mut grant = to_alice(&[GrantOperation::Encrypt]);
    grant.retiring = Some(BOB.to_owned());
    let one = f.keystore.create_grant(&key, &grant, day(0)).unwrap();
    f.keystore.create_grant(&other, &grant, day(1)).unwrap();
    grant.grantee = BOB.to_owned();
    grant.retiring = None;
    f.keystore.create_grant(&key, &grant, day(2)).unwrap();
    let ids = |filter: &GrantFilter| -> Vec<String> {
        let found = f.keystore.list_grants(&key, filter).unwrap();
        found.iter().map(|grant| grant.grantee_principal.clone()).collect()
    };
    assert_eq!(ids(&GrantFilter::default()), [ALICE, BOB]);
    assert_eq!(ids(&GrantFilter { id: Some(one.id), grantee: None }), [ALICE]);
    assert_eq!(ids(&GrantFilter { id: None, grantee: Some(BOB.into()) }), [BOB]);
    assert_eq!(f.keystore.list_retirable_grants(BOB).unwrap().len(), 2);
    assert_eq!(f.keystore.list_retirable_grants(ALICE).unwrap().len(), 0);
}

#[test]
fn a_grant_is_retired_by_those_whom_it_names() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let (alice, bob) = (unix(&f.keystore, 1000), unix(&f.keystore, 1001));
    let retirable =
        CreateGrant { retiring: Some(BOB.to_owned()), ..to_alice(&[GrantOperation::Encrypt]) };
    let made = f.keystore.create_grant(&key, &retirable, day(0)).unwrap();
    assert_eq!(verdict(alice.retire_grant(&key, made.id)), DENIED);
    assert_eq!(verdict(bob.revoke_grant(&key, made.id)), DENIED);
    bob.retire_grant_by_token(&made.token).unwrap();
    assert_eq!(verdict(bob.retire_grant_by_token(&made.token)), "InvalidGrantTokenException");
    let own = to_alice(&[GrantOperation::Encrypt, GrantOperation::RetireGrant]);
    let (own, other) = (
        f.keystore.create_grant(&key, &own, day(0)).unwrap(),
        f.keystore.create_grant(&key, &to_alice(&[GrantOperation::Decrypt]), day(0)).unwrap(),
    );
    assert_eq!(verdict(alice.retire_grant(&key, other.id)), DENIED, "only that grant itself");
    alice.retire_grant(&key, own.id).unwrap();
    assert_eq!(listed(&f.keystore, &key).len(), 1);
}

#[test]
fn tokens_of_other_grants_are_refused_wherever_they_are_shown() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let made =
        f.keystore.create_grant(&key, &to_alice(&[GrantOperation::Encrypt]), day(0)).unwrap();
    let with = |tokens: &[&str]| {
        let caller = Caller::new(Principal::Unix { uid: 1000 }, Source::Socket);
        let grant_tokens = tokens.iter().map(|token| (*token).to_owned()).collect();
        encrypt(&f.keystore.acting_for(Caller { grant_tokens, ..caller }), &key)
    };
    assert_eq!(with(&[&made.token]), "ok");
    let changed = made.token.replace(&made.token[..2], "zz");
    for bad in ["", "x", &changed, &made.token[1..]] {
        assert_eq!(with(&[&made.token, bad]), "InvalidGrantTokenException", "{bad}");
    }
    f.keystore.revoke_grant(&key, made.id).unwrap();
    assert_eq!(with(&[&made.token]), "InvalidGrantTokenException");
}

#[test]
fn who_holds_a_grant_passes_on_no_more_than_it_gives() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let alice = unix(&f.keystore, 1000);
    let own = to_alice(&[GrantOperation::Encrypt, GrantOperation::CreateGrant]);
    f.keystore.create_grant(&key, &own, day(0)).unwrap();
    let to_bob = |operation| CreateGrant { grantee: BOB.to_owned(), ..to_alice(&[operation]) };
    let pass_on = |operation| verdict(alice.create_grant(&key, &to_bob(operation), day(0)));
    assert_eq!(pass_on(GrantOperation::Decrypt), DENIED);
    assert_eq!(pass_on(GrantOperation::Encrypt), "ok");
    assert_eq!(encrypt(&unix(&f.keystore, 1001), &key), "ok");
}

#[test]
fn grants_that_make_no_sense_are_refused() {
    let f = Fixture::new();
    let symmetric = by_id(f.key());
    let refused =
        |key: &KeyRef, grant: &CreateGrant| verdict(f.keystore.create_grant(key, grant, day(5)));
    let fine = to_alice(&[GrantOperation::Encrypt]);
    assert_eq!(refused(&symmetric, &to_alice(&[])), "ValidationException");
    assert_eq!(refused(&symmetric, &to_alice(&[GrantOperation::Sign])), "ValidationException");
    let ended = CreateGrant { expires: Some(day(5)), ..fine.clone() };
    assert_eq!(refused(&symmetric, &ended), "ValidationException");
    let nobody = CreateGrant { grantee: "alice".into(), ..fine.clone() };
    assert_eq!(refused(&symmetric, &nobody), "InvalidArnException");
    let pairs: EncryptionContext = (0..9).map(|n| (n.to_string(), "")).collect();
    let wide = Constraints { equals: Some(pairs), subset: None };
    let wide = CreateGrant { constraints: wide, ..fine.clone() };
    assert_eq!(refused(&symmetric, &wide), "ValidationException");
    f.keystore.disable_key(&symmetric).unwrap();
    assert_eq!(refused(&symmetric, &fine), "DisabledException");
    assert_eq!(verdict("00".parse::<kmsfs::keystore::GrantId>()), "InvalidGrantIdException");
}

#[test]
fn the_grants_of_a_deleted_key_go_with_it() {
    let f = Fixture::new();
    let id: KeyId = f.key();
    f.keystore.create_grant(&by_id(id), &to_alice(&[GrantOperation::Encrypt]), day(0)).unwrap();
    f.keystore.schedule_key_deletion(id, Some(7), day(0)).unwrap();
    for at in 1..=8 {
        f.keystore.delete_expired(day(at), ClockTrust::Steps).unwrap();
    }
    assert_eq!(verdict(f.keystore.describe_key(&by_id(id))), "NotFoundException");
    assert!(f.keystore.list_retirable_grants(ALICE).unwrap().is_empty());
    let rows: i64 = rusqlite::Connection::open(f.path())
        .unwrap()
        .query_row("SELECT count(*) FROM key_grant", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn constraints_need_a_key_with_an_encryption_context() {
    let f = Fixture::new();
    let request = CreateKey {
        spec: Some(KeySpec::Hmac256),
        usage: Some(KeyUsage::GenerateVerifyMac),
        ..CreateKey::default()
    };
    let key = by_id(f.keystore.create_key(request, day(0)).unwrap().key_id);
    let grant = to_alice(&[GrantOperation::GenerateMac]);
    let constraints = Constraints { equals: Some(context(&[("a", "b")])), subset: None };
    let bound = CreateGrant { constraints, ..grant.clone() };
    assert_eq!(verdict(f.keystore.create_grant(&key, &bound, day(0))), "ValidationException");
    assert_eq!(verdict(f.keystore.create_grant(&key, &grant, day(0))), "ok");
}

/// A dry run was told that it would succeed before anybody had looked at the operations.
#[test]
fn regression_a_dry_run_of_a_grant_fails_as_the_grant_would() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let dry = f.keystore.acting_for(Caller { dry_run: true, ..Caller::owner() });
    let tried = |operation| verdict(dry.create_grant(&key, &to_alice(&[operation]), day(0)));
    assert_eq!(tried(GrantOperation::Sign), "ValidationException");
    assert_eq!(tried(GrantOperation::Encrypt), "DryRunOperationException");
    assert_eq!(listed(&f.keystore, &key), []);
}
