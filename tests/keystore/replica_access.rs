//! Who may replicate a key: both keystores are asked before one of them is written to.

use kmsfs::id::KeyId;
use kmsfs::keystore::{
    Caller, CreateKey, KeySpec, KeyUsage, Keystore, KeystoreError, LockoutCheck, Principal,
    Received, ReplicaPolicy, ReplicaProperties, Source, Trust, default_key_policy,
};

use crate::audit::{of, records};
use crate::fixture::{by_id, day};
use crate::replicas::{Pair, fails, kind, multi_region};

const DENIED: &str = "AccessDeniedException";

impl Pair {
    /// What a principal who is bound by policies comes to by replicating a key.
    fn replicate(
        &self,
        principal: Principal,
        key: KeyId,
        properties: ReplicaProperties,
    ) -> Result<Received, KeystoreError> {
        let there = bound(&self.there, principal.clone());
        bound(&self.here, principal).replicate_key_into(key, &there, properties, day(0))
    }

    /// Nothing of the key, and nothing that could open it, is at the destination.
    fn nothing_arrived(&self, key: KeyId) {
        assert!(kind(&self.here, key).2.is_empty());
        assert!(self.there.list_keys().unwrap().is_empty());
        self.no_transfer_key_is_left();
    }

    fn no_transfer_key_is_left(&self) {
        let database = rusqlite::Connection::open(self.there.path()).unwrap();
        let count = "SELECT count(*) FROM transfer_key";
        assert_eq!(database.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
}

fn bound(keystore: &Keystore, principal: Principal) -> Keystore {
    keystore.acting_for(Caller::new(principal, Source::Socket))
}

fn alice() -> Principal {
    Principal::Unix { uid: 1000 }
}

/// The one policy that the account of this keystore has for Alice.
fn allow(keystore: &Keystore, action: &str, condition: &str) {
    let policy = format!(
        r#"{{"Statement":{{"Effect":"Allow","Action":"{action}","Resource":"*",
            "Condition":{condition}}}}}"#
    );
    keystore.put_principal_policy(&alice().arn(), "only", &policy).unwrap();
}

fn results(keystore: &Keystore, operation: &str) -> Vec<String> {
    keystore.flush_audit().unwrap();
    let all = records(keystore, &of(operation)).into_iter();
    all.map(|record| record.event.result.to_string()).collect()
}

/// The destination had a transfer key, and the source had noted a replica or given its role away,
/// before anybody asked whether the caller may.
#[test]
fn regression_what_one_keystore_refuses_the_other_does_not_begin() {
    let pair = Pair::new();
    let key = pair.key();
    let none = ReplicaProperties::default;
    allow(&pair.there, "kms:*", "{}");
    fails(pair.replicate(alice(), key, none()), DENIED);
    pair.nothing_arrived(key);
    assert_eq!(results(&pair.here, "ReplicateKey"), [DENIED]);

    allow(&pair.here, "kms:*", "{}");
    allow(&pair.there, "kms:ListKeys", "{}");
    fails(pair.replicate(alice(), key, none()), DENIED);
    pair.nothing_arrived(key);
    assert_eq!(results(&pair.there, "CreateKey"), [DENIED]);
    assert_eq!(results(&pair.here, "ReplicateKey"), [DENIED]);

    pair.here.replicate_key_into(key, &pair.there, none(), day(0)).unwrap();
    let (here, there) = (bound(&pair.here, alice()), bound(&pair.there, alice()));
    fails(here.update_primary_region_in(key, &there), DENIED);
    assert_eq!(kind(&pair.here, key).0, "PRIMARY");
    fails(here.sync_replica_in(key, &there), DENIED);
    pair.no_transfer_key_is_left();
    allow(&pair.there, "kms:UpdatePrimaryRegion", "{}");
    here.update_primary_region_in(key, &there).unwrap();
    assert_eq!(kind(&pair.there, key).0, "PRIMARY");
    pair.no_transfer_key_is_left();
}

/// A replica was made without telling the policies what it is: conditions of CreateKey refused all
/// replicas, and those of a Deny none.
#[test]
fn regression_conditions_of_create_key_see_what_the_replica_is() {
    let pair = Pair::new();
    let tagged =
        pair.here.create_key(CreateKey { tags: tagged_ops(), ..multi_region() }, day(0)).unwrap();
    let signs = CreateKey {
        spec: Some(KeySpec::EccNistP256),
        usage: Some(KeyUsage::SignVerify),
        tags: tagged_ops(),
        ..multi_region()
    };
    let signs = pair.here.create_key(signs, day(0)).unwrap().key_id;
    let none = ReplicaProperties::default;
    allow(&pair.here, "kms:ReplicateKey", "{}");
    allow(
        &pair.there,
        "kms:CreateKey",
        r#"{"StringEquals":{"kms:KeySpec":"SYMMETRIC_DEFAULT","kms:KeyUsage":"ENCRYPT_DECRYPT",
            "kms:KeyOrigin":"AWS_KMS","aws:RequestTag/team":"ops"},
            "Bool":{"kms:MultiRegion":"true"}}"#,
    );
    let refused = pair.replicate(alice(), tagged.key_id, none()).unwrap_err().to_string();
    assert!(refused.contains("kms:TagResource"), "{refused}");
    let tags = r#"{"Statement":{"Effect":"Allow","Action":"kms:TagResource","Resource":"*"}}"#;
    pair.there.put_principal_policy(&alice().arn(), "tags", tags).unwrap();
    fails(pair.replicate(alice(), pair.key(), none()), DENIED);
    fails(pair.replicate(alice(), signs, none()), DENIED);
    pair.nothing_arrived(signs);

    // Also of a key that comes in a file, which stays good for who may.
    let send = |key| {
        let to = pair.there.create_transfer_key(day(0)).unwrap();
        pair.here.replicate_key(key, &to, none()).unwrap()
    };
    let there = bound(&pair.there, alice());
    let refused = send(signs);
    fails(there.receive_key(&refused, &Trust::Compared, day(0)), DENIED);
    pair.there.receive_key(&refused, &Trust::Compared, day(0)).unwrap();
    there.receive_key(&send(tagged.key_id), &Trust::Compared, day(0)).unwrap();
}

/// The policy of a replica was set after the replica was there: a bad one left a key behind that
/// had the default policy.
#[test]
fn regression_a_replica_and_its_policy_come_together_or_not_at_all() {
    let pair = Pair::new();
    let key = pair.key();
    let with = |policy: &str, lockout| ReplicaProperties {
        policy: ReplicaPolicy::Own(policy.to_owned()),
        tags: Some(tagged_ops()),
        lockout,
        ..ReplicaProperties::default()
    };
    let malformed = "MalformedPolicyDocumentException";
    let enforced = LockoutCheck::Enforced;
    fails(pair.replicate(Principal::Root, key, with("{}", enforced)), malformed);
    let others = default_key_policy().replace("000000000000:root", "000000000000:user/bob");
    fails(pair.replicate(Principal::Root, key, with(&others, enforced)), malformed);
    pair.nothing_arrived(key);
    let many = (0..51).map(|n| (n.to_string(), String::new())).collect();
    let many = ReplicaProperties { tags: Some(many), ..ReplicaProperties::default() };
    fails(pair.replicate(Principal::Root, key, many), "TagException");
    pair.nothing_arrived(key);

    let bypassed = with(&others, LockoutCheck::Bypassed);
    let made = pair.replicate(Principal::Root, key, bypassed).unwrap();
    assert_eq!((&made.policy, &made.tags), (&others, &tagged_ops()));
    assert_eq!(pair.there.get_key_policy(&by_id(key)).unwrap(), others);
}

fn tagged_ops() -> std::collections::BTreeMap<String, String> {
    [("team".to_owned(), "ops".to_owned())].into()
}
