//! The table of operations and condition keys, walked: each key of each operation decides.
//!
//! The attack: a Deny on a condition key that an operation does not supply is passed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use kmsfs::id::{KeyId, MaterialId};
use kmsfs::keystore::policy::{Fact, NOT_SUPPLIED};
use kmsfs::keystore::{
    ACCOUNT, AccessKeyStatus, Action, AliasName, Caller, CiphertextBlob, Constraints,
    CreateAccessKey, CreateGrant, CreateKey, CreateKeyStore, EncryptionAlgorithm,
    EncryptionContext, ExpirationModel, GrantFilter, GrantId, GrantOperation, ImportRequest,
    KeyRef, KeySpec, KeyUsage, Keystore, KeystoreError, LockoutCheck, MacAlgorithm, MessageType,
    Origin, Pin, Principal, ReEncryptDestination, ReEncryptSource, ReferenceReport,
    ReplicaProperties, SigningAlgorithm, Source, SuppliedKey, TokenRef, TransferKey, UnixTime,
    UpdateKeyStore, ViaService, WrappingAlgorithm, WrappingKeySpec, is_about_a_key, supplied_keys,
};

use crate::fixture::{Fixture, day};

const DENIED: &str = "AccessDeniedException";
const ALICE: &str = "arn:aws:iam::000000000000:user/unix/1000";
const BOB: &str = "arn:aws:iam::000000000000:user/bob";
const CAROL: &str = "arn:aws:iam::000000000000:user/carol";

/// Operations that are up to the account's root alone, whatever policies say.
const OF_ROOT: &[Action] = &[
    Action::CreateAccessKey,
    Action::DeleteAccessKey,
    Action::DeletePrincipalPolicy,
    Action::GetPrincipalPolicy,
    Action::ListAccessKeys,
    Action::ListPrincipals,
    Action::PutPrincipalPolicy,
    Action::UpdateAccessKey,
];

/// Keys of every kind, each named by an alias, and a request of each operation for one of them.
struct Stage {
    f: Fixture,
    keys: BTreeMap<&'static str, KeyId>,
    grant: GrantId,
    sealed: CiphertextBlob,
    elsewhere: TransferKey,
    _there: Fixture,
}

fn alias(name: &str) -> AliasName {
    format!("alias/{name}").parse().unwrap()
}

fn pairs(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn context() -> EncryptionContext {
    [("dept", "hr")].into_iter().collect()
}

impl Stage {
    fn new() -> Self {
        let f = Fixture::new();
        let kind = |spec, usage, origin| CreateKey {
            spec: Some(spec),
            usage: Some(usage),
            origin: Some(origin),
            multi_region: true,
            tags: pairs("team", "red"),
            ..CreateKey::default()
        };
        let keys = [
            ("sym", KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, Origin::AwsKms),
            ("sign", KeySpec::EccNistP256, KeyUsage::SignVerify, Origin::AwsKms),
            ("agree", KeySpec::EccNistP256, KeyUsage::KeyAgreement, Origin::AwsKms),
            ("mac", KeySpec::Hmac256, KeyUsage::GenerateVerifyMac, Origin::AwsKms),
            ("ext", KeySpec::SymmetricDefault, KeyUsage::EncryptDecrypt, Origin::External),
        ];
        let make = |(name, spec, usage, origin): (&'static str, _, _, _)| {
            let made = f.keystore.create_key(kind(spec, usage, origin), day(0)).unwrap().key_id;
            f.keystore.create_alias(&alias(name), made, day(0)).unwrap();
            (name, made)
        };
        let keys: BTreeMap<_, _> = keys.into_iter().map(make).collect();
        let sym = KeyRef::Id(keys["sym"]);
        let constraints = Constraints { equals: Some(context()), subset: None };
        let grant = CreateGrant {
            grantee: BOB.into(),
            operations: vec![GrantOperation::Decrypt],
            constraints,
            ..CreateGrant::default()
        };
        let there = Fixture::new();
        there.keystore.adopt_region("second").unwrap();
        Self {
            grant: f.keystore.create_grant(&sym, &grant, day(0)).unwrap().id,
            sealed: f.keystore.encrypt(&sym, b"x", &context()).unwrap(),
            elsewhere: there.keystore.create_transfer_key(day(0)).unwrap(),
            _there: there,
            keys,
            f,
        }
    }

    /// Alice, who only wants to know whether she may.
    fn alice(&self) -> Keystore {
        self.f.keystore.acting_for(Caller {
            at: Some(day(10)),
            via: Some(ViaService::Kmsfs),
            source_ip: Some(IpAddr::from([192, 0, 2, 7])),
            secure_transport: true,
            dry_run: true,
            ..Caller::new(Principal::Unix { uid: 1000 }, Source::Network)
        })
    }

    fn is_refused(&self, action: Action) -> bool {
        let result = perform(self, &self.alice(), action);
        result.is_err_and(|error| error.aws_name() == DENIED)
    }

    /// Puts these statements in force, for `action` alone: everything else is allowed.
    fn rule(&self, action: Action, statements: &[String]) {
        let mut all = statements.to_vec();
        let key = is_about_a_key(action);
        let who = if key { format!(r#""Principal":{{"AWS":"{ALICE}"}},"#) } else { String::new() };
        all.push(format!(
            r#"{{"Effect":"Allow",{who}"NotAction":"{}","Resource":"*"}}"#,
            action.permission()
        ));
        let document = |all: &[String]| {
            format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, all.join(","))
        };
        if key {
            let id = KeyRef::Id(self.keys[name_for(action)]);
            let policy = document(&all);
            self.f.keystore.put_key_policy(&id, &policy, LockoutCheck::Bypassed).unwrap();
            // What aliases take from the account.
            all = vec![
                r#"{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:*:000000000000:alias/*"}"#
                    .to_owned(),
            ];
        }
        self.f.keystore.put_principal_policy(ALICE, "only", &document(&all)).unwrap();
    }
}

/// A statement for Alice about one operation, under a condition that one key has a value.
fn statement(effect: &str, action: Action, condition: Option<(&SuppliedKey, &str)>) -> String {
    let key = is_about_a_key(action);
    let who = if key { format!(r#""Principal":{{"AWS":"{ALICE}"}},"#) } else { String::new() };
    let condition = condition.map_or_else(String::new, |(key, value)| {
        let operator = match key {
            SuppliedKey::Fact(Fact::SourceIp) => "IpAddress",
            key if key.has_many_values() => "ForAnyValue:StringEquals",
            _ => "StringEquals",
        };
        format!(r#","Condition":{{"{operator}":{{"{}":"{value}"}}}}"#, name(*key))
    });
    let permission = action.permission();
    format!(r#"{{"Effect":"{effect}",{who}"Action":"{permission}","Resource":"*"{condition}}}"#)
}

fn name(key: SuppliedKey) -> String {
    match key {
        SuppliedKey::Fact(fact) => fact.as_str().to_owned(),
        SuppliedKey::EncryptionContext => "kms:EncryptionContext:dept".to_owned(),
        SuppliedKey::ResourceTag => "aws:ResourceTag/team".to_owned(),
        SuppliedKey::RequestTag => "aws:RequestTag/team".to_owned(),
    }
}

/// A value that the request of [`perform`] does not have.
fn another(key: SuppliedKey) -> &'static str {
    if key == SuppliedKey::Fact(Fact::SourceIp) { "198.51.100.1" } else { "another" }
}

/// The alias of the key that the operation is tried on.
fn name_for(action: Action) -> &'static str {
    match action {
        Action::Sign | Action::Verify | Action::GetPublicKey => "sign",
        Action::DeriveSharedSecret => "agree",
        Action::GenerateMac | Action::VerifyMac => "mac",
        Action::GetParametersForImport
        | Action::ImportKeyMaterial
        | Action::DeleteImportedKeyMaterial => "ext",
        _ => "sym",
    }
}

/// The value that the request of [`perform`] has under a key.
fn value(action: Action, key: SuppliedKey) -> String {
    let fact = match key {
        SuppliedKey::EncryptionContext => return "hr".into(),
        SuppliedKey::ResourceTag if is_about_a_key(action) => return "red".into(),
        SuppliedKey::ResourceTag => return "blue".into(),
        SuppliedKey::RequestTag => return "blue".into(),
        SuppliedKey::Fact(fact) => fact,
    };
    let (spec, usage) = match name_for(action) {
        "sign" => ("ECC_NIST_P256", "SIGN_VERIFY"),
        "agree" => ("ECC_NIST_P256", "KEY_AGREEMENT"),
        "mac" => ("HMAC_256", "GENERATE_VERIFY_MAC"),
        _ => ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT"),
    };
    let now = UnixTime::from(day(10));
    match fact {
        Fact::ViaService => "kmsfs".into(),
        Fact::CallerAccount | Fact::PrincipalAccount => ACCOUNT.into(),
        Fact::GrantIsForAwsResource | Fact::MultiRegion | Fact::SecureTransport => "true".into(),
        Fact::ReEncryptOnSameKey => "true".into(),
        Fact::BypassPolicyLockoutSafetyCheck => "false".into(),
        Fact::EncryptionContextKeys => "dept".into(),
        Fact::KeySpec => spec.into(),
        Fact::KeyUsage => usage.into(),
        Fact::KeyOrigin => if name_for(action) == "ext" { "EXTERNAL" } else { "AWS_KMS" }.into(),
        Fact::MultiRegionKeyType => "PRIMARY".into(),
        Fact::RequestAlias | Fact::ResourceAliases => alias(name_for(action)).as_str().into(),
        Fact::GrantOperations => "Decrypt".into(),
        Fact::GranteePrincipal => BOB.into(),
        Fact::RetiringPrincipal => CAROL.into(),
        Fact::GrantConstraintType if action == Action::CreateGrant => {
            "EncryptionContextSubset".into()
        }
        Fact::GrantConstraintType => "EncryptionContextEquals".into(),
        Fact::PendingWindowInDays => "7".into(),
        Fact::EncryptionAlgorithm => "SYMMETRIC_DEFAULT".into(),
        Fact::DataKeyPairSpec => "ECC_NIST_P256".into(),
        Fact::SigningAlgorithm => "ECDSA_SHA_256".into(),
        Fact::MacAlgorithm => "HMAC_SHA_256".into(),
        Fact::KeyAgreementAlgorithm => "ECDH".into(),
        Fact::MessageType => "RAW".into(),
        Fact::RotationPeriodInDays => "90".into(),
        Fact::ExpirationModel => "KEY_MATERIAL_EXPIRES".into(),
        Fact::ValidTo => UnixTime::from(day(30)).to_string(),
        Fact::WrappingAlgorithm => "RSAES_OAEP_SHA_256".into(),
        Fact::WrappingKeySpec => "RSA_2048".into(),
        Fact::ReplicaRegion | Fact::PrimaryRegion => "second".into(),
        Fact::PrincipalArn => ALICE.into(),
        Fact::PrincipalType => "User".into(),
        Fact::CurrentTime => now.to_string(),
        Fact::EpochTime => now.seconds().to_string(),
        Fact::SourceIp => "192.0.2.7".into(),
        Fact::Username | Fact::UserId => "unix/1000".into(),
        Fact::TagKeys => "team".into(),
        Fact::Source => "network".into(),
    }
}

/// Does one operation, with an argument for every condition key that it has.
fn perform(stage: &Stage, who: &Keystore, action: Action) -> Result<(), KeystoreError> {
    let id = stage.keys[name_for(action)];
    let key = &KeyRef::Alias(alias(name_for(action)));
    match action {
        Action::CreateKey
        | Action::ListKeys
        | Action::ListAliases
        | Action::ListRetirableGrants
        | Action::GenerateRandom
        | Action::ConnectCustomKeyStore
        | Action::DisconnectCustomKeyStore
        | Action::CreateCustomKeyStore
        | Action::UpdateCustomKeyStore
        | Action::DeleteCustomKeyStore
        | Action::DescribeCustomKeyStores => on_the_account(who, action),
        Action::Encrypt
        | Action::Decrypt
        | Action::ReEncryptFrom
        | Action::ReEncryptTo
        | Action::GenerateDataKey
        | Action::GenerateDataKeyPair
        | Action::GenerateDataKeyPairWithoutPlaintext
        | Action::GenerateDataKeyWithoutPlaintext => with_context(stage, who, action, key),
        Action::CreateAlias | Action::UpdateAlias | Action::DeleteAlias => {
            on_an_alias(stage, who, action, id)
        }
        Action::CreateGrant | Action::ListGrants | Action::RetireGrant | Action::RevokeGrant => {
            on_a_grant(stage, who, action, key)
        }
        Action::GetParametersForImport
        | Action::ImportKeyMaterial
        | Action::DeleteImportedKeyMaterial => import(who, action, key),
        Action::ReplicateKey => {
            let properties = ReplicaProperties::default();
            who.replicate_key(id, &stage.elsewhere, properties).map(drop)
        }
        Action::UpdatePrimaryRegion => who.update_primary_region(id, &stage.elsewhere).map(drop),
        Action::ScheduleKeyDeletion => who.schedule_key_deletion(id, Some(7), day(10)).map(drop),
        Action::GetKeyLastUsage => who.get_key_last_usage(id).map(drop),
        _ => on_a_key(who, action, key),
    }
}

fn with_context(
    stage: &Stage,
    who: &Keystore,
    action: Action,
    key: &KeyRef,
) -> Result<(), KeystoreError> {
    let context = &context();
    let spec = KeySpec::EccNistP256;
    match action {
        Action::Encrypt => who.encrypt(key, b"x", context).map(drop),
        Action::Decrypt => who.decrypt(&stage.sealed, context, Some(key)).map(drop),
        Action::GenerateDataKey => who.generate_data_key(key, context).map(drop),
        Action::GenerateDataKeyWithoutPlaintext => {
            who.generate_data_key_without_plaintext(key, 16, context).map(drop)
        }
        Action::GenerateDataKeyPair => who.generate_data_key_pair(key, spec, context).map(drop),
        Action::GenerateDataKeyPairWithoutPlaintext => {
            who.generate_data_key_pair_without_plaintext(key, spec, context).map(drop)
        }
        _ => {
            let algorithm = EncryptionAlgorithm::SymmetricDefault;
            let ciphertext = stage.sealed.as_bytes();
            let source = ReEncryptSource { key: Some(key), algorithm, ciphertext, context };
            let destination = ReEncryptDestination { key, algorithm, context };
            who.re_encrypt_with(source, destination).map(drop)
        }
    }
}

fn on_an_alias(
    stage: &Stage,
    who: &Keystore,
    action: Action,
    key: KeyId,
) -> Result<(), KeystoreError> {
    match action {
        Action::CreateAlias => who.create_alias(&alias("new"), key, day(10)),
        Action::UpdateAlias => who.update_alias(&alias("sym"), key, day(10)),
        _ => {
            // There is no dry run of it.
            let (owner, spare) = (&stage.f.keystore, alias("spare"));
            owner.create_alias(&spare, key, day(0)).unwrap();
            let deleted = who.delete_alias(&spare);
            if deleted.is_err() {
                owner.delete_alias(&spare).unwrap();
            }
            deleted
        }
    }
}

fn on_a_grant(
    stage: &Stage,
    who: &Keystore,
    action: Action,
    key: &KeyRef,
) -> Result<(), KeystoreError> {
    match action {
        Action::CreateGrant => {
            let constraints = Constraints { equals: None, subset: Some(context()) };
            let request = CreateGrant {
                grantee: BOB.into(),
                retiring: Some(CAROL.into()),
                operations: vec![GrantOperation::Decrypt],
                constraints,
                ..CreateGrant::default()
            };
            who.create_grant(key, &request, day(10)).map(drop)
        }
        Action::ListGrants => who.list_grants(key, &GrantFilter::default()).map(drop),
        Action::RetireGrant => who.retire_grant(key, stage.grant),
        _ => who.revoke_grant(key, stage.grant),
    }
}

fn import(who: &Keystore, action: Action, key: &KeyRef) -> Result<(), KeystoreError> {
    match action {
        Action::GetParametersForImport => {
            let (algorithm, spec) = (WrappingAlgorithm::RsaesOaepSha256, WrappingKeySpec::Rsa2048);
            who.get_parameters_for_import(key, algorithm, spec, day(10)).map(drop)
        }
        Action::ImportKeyMaterial => {
            let request = ImportRequest {
                token: b"",
                encrypted: b"",
                model: ExpirationModel::KeyMaterialExpires,
                valid_to: Some(day(30)),
                import_type: None,
                description: None,
                material: None,
            };
            who.import_key_material(key, &request, day(10)).map(drop)
        }
        _ => who.delete_imported_key_material(key, None).map(drop),
    }
}

fn on_a_key(who: &Keystore, action: Action, key: &KeyRef) -> Result<(), KeystoreError> {
    match action {
        Action::CancelKeyDeletion => who.cancel_key_deletion(key).map(drop),
        Action::DescribeKey => who.describe_key(key).map(drop),
        Action::DisableKey => who.disable_key(key),
        Action::DisableKeyRotation => who.disable_key_rotation(key),
        Action::EnableKey => who.enable_key(key),
        Action::EnableKeyRotation => who.enable_key_rotation(key, Some(90), day(10)),
        Action::GetKeyPolicy => who.get_key_policy(key).map(drop),
        Action::GetKeyRotationStatus => who.get_key_rotation_status(key).map(drop),
        Action::ListKeyPolicies => who.list_key_policies(key).map(drop),
        Action::ListKeyRotations => who.list_key_rotations(key).map(drop),
        Action::ListResourceTags => who.list_resource_tags(key).map(drop),
        Action::PutKeyPolicy => {
            let policy = kmsfs::keystore::default_key_policy();
            who.put_key_policy(key, policy, LockoutCheck::Enforced).map(drop)
        }
        Action::RetireKeyMaterial => {
            let material = MaterialId::from_bytes([7; 16]);
            who.retire_material(key, material, &ReferenceReport::default())
        }
        Action::RotateKeyOnDemand => who.rotate_key_on_demand(key, day(10)).map(drop),
        Action::TagResource => who.tag_resource(key, pairs("team", "blue")),
        Action::UntagResource => who.untag_resource(key, &["team"]),
        Action::UpdateKeyDescription => who.update_key_description(key, "x"),
        _ => cryptography(who, action, key),
    }
}

fn cryptography(who: &Keystore, action: Action, key: &KeyRef) -> Result<(), KeystoreError> {
    let (ecdsa, raw) = (SigningAlgorithm::EcdsaSha256, MessageType::Raw);
    let hmac = MacAlgorithm::HmacSha256;
    match action {
        Action::Sign => who.sign(key, ecdsa, raw, b"x").map(drop),
        Action::Verify => who.verify_signature(key, ecdsa, raw, b"x", b"y").map(drop),
        Action::GetPublicKey => who.get_public_key(key).map(drop),
        Action::DeriveSharedSecret => who.derive_shared_secret(key, b"").map(drop),
        Action::GenerateMac => who.generate_mac(key, hmac, b"x").map(drop),
        Action::VerifyMac => who.verify_mac(key, hmac, b"x", b"y").map(drop),
        other => panic!("{other} is not tried: add it to the walk"),
    }
}

fn on_the_account(who: &Keystore, action: Action) -> Result<(), KeystoreError> {
    let store = "cks-0123456789abcdef0".parse().unwrap();
    match action {
        Action::CreateKey => {
            let tags = pairs("team", "blue");
            let request = CreateKey { multi_region: true, tags, ..CreateKey::default() };
            who.create_key(request, day(10)).map(drop)
        }
        Action::ListKeys => who.list_keys().map(drop),
        Action::ListAliases => who.list_aliases(None).map(drop),
        Action::ListRetirableGrants => who.list_retirable_grants(ALICE).map(drop),
        Action::GenerateRandom => who.generate_random(8).map(drop),
        Action::ConnectCustomKeyStore => who.connect_custom_key_store(store),
        Action::DisconnectCustomKeyStore => who.disconnect_custom_key_store(store),
        Action::DeleteCustomKeyStore => who.delete_custom_key_store(store),
        Action::DescribeCustomKeyStores => who.describe_custom_key_stores(None, None).map(drop),
        Action::UpdateCustomKeyStore => {
            who.update_custom_key_store(store, &UpdateKeyStore::default()).map(drop)
        }
        Action::CreateCustomKeyStore => {
            let token_ref = TokenRef::new(Path::new("/usr/lib/none.so"), "none");
            let pin = Pin::new(Vec::new().into());
            let request = CreateKeyStore { name: "none".into(), token_ref, pin };
            who.create_custom_key_store(&request, day(10)).map(drop)
        }
        other => panic!("{other} is not tried: add it to the walk"),
    }
}

/// The attacks: UntagResource said nothing of `aws:TagKeys`, CreateGrant nothing of the contexts of
/// its constraints, and so a Deny on them was passed.
#[test]
fn every_condition_key_of_every_operation_decides_by_deny_and_by_allow() {
    let stage = Stage::new();
    for action in Action::ALL.iter().copied().filter(|action| !OF_ROOT.contains(action)) {
        let keys = supplied_keys(action);
        let on = |effect, key: &SuppliedKey| {
            statement(effect, action, Some((key, &value(action, *key))))
        };
        let off = |effect| {
            let other = |key| statement(effect, action, Some((key, another(*key))));
            keys.iter().map(other).collect::<Vec<_>>()
        };
        let plain = statement("Allow", action, None);
        let mut denied_elsewhere = off("Deny");
        denied_elsewhere.push(plain.clone());
        stage.rule(action, &denied_elsewhere);
        assert!(!stage.is_refused(action), "{action}: a Deny on other values is none");
        stage.rule(action, &off("Allow"));
        assert!(stage.is_refused(action), "{action}: an Allow on other values is none");
        for key in &keys {
            stage.rule(action, &[plain.clone(), on("Deny", key)]);
            assert!(stage.is_refused(action), "{action}: a Deny on {key:?} is passed");
            stage.rule(action, &[on("Allow", key)]);
            assert!(!stage.is_refused(action), "{action}: an Allow on {key:?} is not seen");
        }
    }
}

#[test]
fn what_is_up_to_the_root_is_allowed_by_no_policy() {
    let f = Fixture::new();
    let all = r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"*"}}"#;
    f.keystore.put_principal_policy(ALICE, "all", all).unwrap();
    let alice = f.keystore.acting_for(Caller::new(Principal::Unix { uid: 1000 }, Source::Socket));
    let tried = [
        alice.create_access_key(&CreateAccessKey::default(), day(0)).map(drop),
        alice.list_access_keys().map(drop),
        alice.update_access_key("AKIA", AccessKeyStatus::Inactive),
        alice.delete_access_key("AKIA"),
        alice.put_principal_policy(BOB, "all", all),
        alice.get_principal_policy(ALICE, "all").map(drop),
        alice.delete_principal_policy(ALICE, "all"),
        alice.list_principals().map(drop),
    ];
    assert_eq!(tried.len(), OF_ROOT.len());
    for (result, action) in tried.into_iter().zip(OF_ROOT) {
        assert_eq!(result.unwrap_err().aws_name(), DENIED, "{action}");
    }
}

/// As part of a Deny, a key that no request has would deny nothing.
#[test]
fn a_policy_that_asks_for_what_no_request_has_is_refused_with_the_reason() {
    let f = Fixture::new();
    let key = KeyRef::Id(f.key());
    for (start, why) in NOT_SUPPLIED {
        for operator in ["StringEquals", "StringNotEqualsIfExists", "Null"] {
            let policy = format!(
                r#"{{"Statement":[{{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*",
                    "Condition":{{"{operator}":{{"{start}x":"true"}}}}}}]}}"#
            );
            let put = f.keystore.put_key_policy(&key, &policy, LockoutCheck::Bypassed);
            let error = put.unwrap_err();
            assert_eq!(error.aws_name(), "MalformedPolicyDocumentException");
            assert!(error.to_string().ends_with(why), "{error}");
        }
    }
}

/// AWS asks for kms:TagResource as well when CreateKey brings tags.
#[test]
fn a_key_is_not_made_with_tags_by_somebody_who_may_not_tag() {
    let f = Fixture::new();
    let alice = f.keystore.acting_for(Caller::new(Principal::Unix { uid: 1000 }, Source::Socket));
    let create = |tags| {
        let made = alice.create_key(CreateKey { tags, ..CreateKey::default() }, day(0));
        made.map_or_else(|error| error.to_string(), |_| "ok".into())
    };
    let put = |statements: &str| {
        let policy = format!(r#"{{"Statement":[{statements}]}}"#);
        f.keystore.put_principal_policy(ALICE, "only", &policy).unwrap();
    };
    let allow = r#"{"Effect":"Allow","Action":["kms:CreateKey","kms:TagResource"],"Resource":"*"}"#;
    put(allow);
    assert_eq!(create(pairs("team", "red")), "ok");
    put(&format!(
        r#"{allow},{{"Effect":"Deny","Action":"kms:TagResource","Resource":"*",
            "Condition":{{"ForAnyValue:StringEquals":{{"aws:TagKeys":"team"}}}}}}"#
    ));
    assert!(create(pairs("team", "red")).contains("kms:TagResource"));
    assert_eq!(create(pairs("site", "red")), "ok");
    assert_eq!(create(BTreeMap::new()), "ok");
    put(r#"{"Effect":"Allow","Action":"kms:CreateKey","Resource":"*"}"#);
    assert!(create(pairs("team", "red")).contains("kms:TagResource"));
    assert_eq!(create(BTreeMap::new()), "ok");
}

/// Both constraints of one grant count, and so does each of their pairs.
#[test]
fn a_deny_sees_every_context_that_a_grant_is_bound_to() {
    let f = Fixture::new();
    let key = KeyRef::Id(f.key());
    let alice = f.keystore.acting_for(Caller::new(Principal::Unix { uid: 1000 }, Source::Socket));
    let context = |key, value| Some([(key, value)].into_iter().collect::<EncryptionContext>());
    for (name, value) in [
        ("kms:EncryptionContext:dept", "hr"),
        ("kms:EncryptionContext:app", "pay"),
        ("kms:EncryptionContextKeys", "dept"),
        ("kms:EncryptionContextKeys", "app"),
        ("kms:GrantConstraintType", "EncryptionContextEquals"),
        ("kms:GrantConstraintType", "EncryptionContextSubset"),
    ] {
        let policy = format!(
            r#"{{"Statement":[
                {{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}},
                {{"Effect":"Deny","Principal":"*","Action":"kms:CreateGrant","Resource":"*",
                 "Condition":{{"ForAnyValue:StringEquals":{{"{name}":"{value}"}}}}}}]}}"#
        );
        f.keystore.put_key_policy(&key, &policy, LockoutCheck::Enforced).unwrap();
        let request = CreateGrant {
            grantee: BOB.into(),
            operations: vec![GrantOperation::Decrypt],
            constraints: Constraints {
                equals: context("dept", "hr"),
                subset: context("app", "pay"),
            },
            ..CreateGrant::default()
        };
        let denied = alice.create_grant(&key, &request, day(0)).unwrap_err();
        assert_eq!(denied.aws_name(), DENIED, "{name} {value}");
    }
}
