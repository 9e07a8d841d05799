//! Key policies and the account's policies: who may do what, and who not any more.

use std::time::Duration;

use kmsfs::keystore::{
    Action, Caller, CreateGrant, CreateKey, EncryptionContext, GrantOperation, KeyRef, KeySpec,
    KeyUsage, Keystore, KeystoreError, LockoutCheck, MessageType, Principal, SigningAlgorithm,
    Source, default_key_policy,
};

use crate::fixture::{Fixture, by_id, day};

/// A user of this machine who asks over a Unix socket.
fn unix(keystore: &Keystore, uid: u32) -> Keystore {
    keystore.acting_for(Caller::new(Principal::Unix { uid }, Source::Socket))
}

fn root(keystore: &Keystore) -> Keystore {
    keystore.acting_for(Caller::new(Principal::Root, Source::Socket))
}

fn statement(effect: &str, principal: &str, action: &str, condition: &str) -> String {
    format!(
        r#"{{"Effect":"{effect}","Principal":{{"AWS":"{principal}"}},"Action":"{action}",
            "Resource":"*","Condition":{condition}}}"#
    )
}

/// The root of the account may do everything, and then more statements.
fn policy(statements: &[String]) -> String {
    let root = statement("Allow", "arn:aws:iam::000000000000:root", "kms:*", "{}");
    let all: Vec<&str> = [&root].into_iter().chain(statements).map(String::as_str).collect();
    format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, all.join(","))
}

fn user(uid: u32) -> String {
    format!("arn:aws:iam::000000000000:user/unix/{uid}")
}

fn put(f: &Fixture, key: &KeyRef, statements: &[String]) {
    f.keystore.put_key_policy(key, &policy(statements), LockoutCheck::Enforced).unwrap();
}

fn encrypt(keystore: &Keystore, key: &KeyRef, context: &[(&str, &str)]) -> &'static str {
    let context: EncryptionContext = context.iter().copied().collect();
    verdict(keystore.encrypt(key, b"x", &context))
}

fn verdict<T>(result: Result<T, KeystoreError>) -> &'static str {
    result.map_or_else(|error| error.aws_name(), |_| "ok")
}

const DENIED: &str = "AccessDeniedException";

#[test]
fn without_a_policy_root_may_everything_and_users_only_what_a_mount_needs() {
    let f = Fixture::new();
    let key = by_id(f.key());
    assert_eq!(f.keystore.get_key_policy(&key).unwrap(), default_key_policy());
    assert_eq!(f.keystore.list_key_policies(&key).unwrap(), ["default"]);
    assert_eq!(encrypt(&root(&f.keystore), &key, &[]), "ok");
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &key, &[]), DENIED);
    let mount = f.keystore.acting_for(Caller::on_mount(1000, vec![100]));
    assert_eq!(verdict(mount.generate_data_key(&key, &EncryptionContext::new())), "ok");
    assert_eq!(encrypt(&mount, &key, &[]), DENIED);
    assert_eq!(verdict(mount.disable_key(&key)), DENIED);
    assert_eq!(verdict(mount.list_keys()), DENIED);
}

#[test]
fn denials_are_worded_as_by_aws_and_name_the_permission() {
    let f = Fixture::new();
    let id = f.key();
    let (key, arn) = (by_id(id), format!("arn:aws:kms:local:000000000000:key/{id}"));
    let words = |keystore: &Keystore| {
        keystore.encrypt(&key, b"x", &EncryptionContext::new()).unwrap_err().to_string()
    };
    let alice = unix(&f.keystore, 1000);
    let start = format!(
        "User: {} is not authorized to perform: kms:Encrypt on resource: {arn}",
        user(1000)
    );
    assert_eq!(
        words(&alice),
        format!(
            "{start} because no key policy, identity-based policy or grant allows the kms:Encrypt \
             action"
        )
    );
    put(&f, &key, &[statement("Deny", &user(1000), "kms:Enc*", "{}")]);
    assert_eq!(words(&alice), format!("{start} with an explicit deny in a resource-based policy"));
    put(&f, &key, &[]);
    let identity = r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    f.keystore.put_principal_policy(&user(1000), "no", identity).unwrap();
    assert_eq!(words(&alice), format!("{start} with an explicit deny in an identity-based policy"));
    assert_eq!(
        unix(&f.keystore, 7).list_keys().unwrap_err().to_string(),
        format!(
            "User: {} is not authorized to perform: kms:ListKeys on resource: * because no \
             identity-based policy allows the kms:ListKeys action",
            user(7)
        )
    );
}

#[test]
fn a_key_policy_is_felt_at_once_here_and_after_a_poll_elsewhere() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let elsewhere = f.reopen();
    let there = unix(&elsewhere, 1000);
    assert_eq!(encrypt(&there, &key, &[]), DENIED);
    put(&f, &key, &[statement("Allow", &user(1000), "kms:Encrypt", "{}")]);
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &key, &[]), "ok");
    assert!(elsewhere.poll_changes().unwrap());
    assert_eq!(encrypt(&there, &key, &[]), "ok");
    put(&f, &key, &[]);
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &key, &[]), DENIED);
    assert!(elsewhere.poll_changes().unwrap());
    assert_eq!(encrypt(&there, &key, &[]), DENIED);
}

#[test]
fn the_accounts_policies_count_only_where_the_key_policy_lets_them() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let allow = r#"{"Statement":{"Effect":"Allow","Action":"kms:Encrypt","Resource":"*"}}"#;
    f.keystore.put_principal_policy(&user(1000), "use", allow).unwrap();
    let alice = unix(&f.keystore, 1000);
    assert_eq!(encrypt(&alice, &key, &[]), "ok");
    assert_eq!(encrypt(&unix(&f.keystore, 1001), &key, &[]), DENIED);
    let only_bob =
        format!(r#"{{"Statement":[{}]}}"#, statement("Allow", &user(1001), "kms:*", "{}"));
    f.keystore.put_key_policy(&key, &only_bob, LockoutCheck::Bypassed).unwrap();
    assert_eq!(encrypt(&alice, &key, &[]), DENIED);
    assert_eq!(encrypt(&unix(&f.keystore, 1001), &key, &[]), "ok");
    assert_eq!(encrypt(&root(&f.keystore), &key, &[]), DENIED, "root is not named any more");
    assert_eq!(encrypt(&f.keystore, &key, &[]), "ok", "whoever has the secret is not bound");
}

#[test]
fn groups_count_by_key_policy_and_by_account_policy() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let staff = "arn:aws:iam::000000000000:group/unix/27";
    let member = f.keystore.acting_for(Caller {
        groups: vec![100, 27],
        ..Caller::new(Principal::Unix { uid: 1000 }, Source::Socket)
    });
    put(&f, &key, &[statement("Allow", staff, "kms:Encrypt", "{}")]);
    assert_eq!(encrypt(&member, &key, &[]), "ok");
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &key, &[]), DENIED);
    let deny = r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#;
    f.keystore.put_principal_policy(staff, "frozen", deny).unwrap();
    assert_eq!(encrypt(&member, &key, &[]), DENIED);
}

#[test]
fn conditions_see_the_request() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let alias = "alias/app".parse().unwrap();
    let KeyRef::Id(id) = key else { unreachable!() };
    f.keystore.create_alias(&alias, id, day(0)).unwrap();
    f.keystore.tag_resource(&key, [("Team".to_owned(), "red".to_owned())].into()).unwrap();
    for (condition, context, expected) in [
        (r#"{"StringEquals":{"kms:EncryptionContext:app":"a"}}"#, &[("app", "a")][..], "ok"),
        (r#"{"StringEquals":{"kms:EncryptionContext:App":"a"}}"#, &[("app", "a")], "ok"),
        (r#"{"StringEquals":{"kms:EncryptionContext:app":"a"}}"#, &[("app", "b")], DENIED),
        (
            r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":"app"}}"#,
            &[("x", "")],
            DENIED,
        ),
        (r#"{"StringEquals":{"kms:KeySpec":"SYMMETRIC_DEFAULT"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"kms:KeyOrigin":"EXTERNAL"}}"#, &[], DENIED),
        (r#"{"StringEquals":{"kms:KeyUsage":"ENCRYPT_DECRYPT"}}"#, &[], "ok"),
        (r#"{"Bool":{"kms:MultiRegion":"false"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"kms:ViaService":"kmsfs"}}"#, &[], DENIED),
        (r#"{"StringEquals":{"kms:CallerAccount":"000000000000"}}"#, &[], "ok"),
        (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/unix/*"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"aws:username":"unix/1000"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"kmsfs:Source":"socket"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"aws:ResourceTag/Team":"red"}}"#, &[], "ok"),
        (r#"{"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/app"}}"#, &[], "ok"),
        (r#"{"StringEquals":{"kms:RequestAlias":"alias/app"}}"#, &[], DENIED),
        (r#"{"Null":{"aws:SourceIp":"true","aws:SecureTransport":"true"}}"#, &[], "ok"),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2027-01-15T08:00:01Z"}}"#, &[], "ok"),
        (r#"{"DateLessThan":{"aws:CurrentTime":"2027-01-15T08:00:00Z"}}"#, &[], DENIED),
        (r#"{"NumericLessThanEquals":{"aws:EpochTime":1800000000}}"#, &[], "ok"),
    ] {
        put(&f, &key, &[statement("Allow", &user(1000), "kms:Encrypt", condition)]);
        let caller = Caller {
            at: Some(day(0)),
            ..Caller::new(Principal::Unix { uid: 1000 }, Source::Socket)
        };
        let alice = f.keystore.acting_for(caller);
        assert_eq!(encrypt(&alice, &key, context), expected, "{condition}");
    }
    let alias_only = r#"{"StringEquals":{"kms:RequestAlias":"alias/app"}}"#;
    put(&f, &key, &[statement("Allow", &user(1000), "kms:Encrypt", alias_only)]);
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &KeyRef::Alias(alias), &[]), "ok");
}

/// A second name that differs only by case came first and was taken for the one that is denied.
#[test]
fn regression_a_name_in_another_case_does_not_pass_a_deny() {
    let f = Fixture::new();
    let (key, alice) = (by_id(f.key()), unix(&f.keystore, 1000));
    let team = |prefix: &str| format!(r#"{{"StringEquals":{{"{prefix}Team":"payroll"}}}}"#);
    let (context, tag) = (team("kms:EncryptionContext:"), team("aws:RequestTag/"));
    let tagged = |pairs: &[(&str, &str)]| {
        let tags = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        verdict(alice.tag_resource(&key, tags.collect()))
    };
    let with: [&[(&str, &str)]; 3] = [
        &[("team", "payroll")],
        &[("TEAM", "x"), ("team", "payroll")],
        &[("Team", "x"), ("team", "payroll")],
    ];
    let open = statement("Allow", &user(1000), "kms:*", "{}");
    put(
        &f,
        &key,
        &[
            open,
            statement("Deny", &user(1000), "kms:Encrypt", &context),
            statement("Deny", &user(1000), "kms:TagResource", &tag),
        ],
    );
    for pairs in with {
        assert_eq!(encrypt(&alice, &key, pairs), DENIED, "{pairs:?}");
        assert_eq!(tagged(pairs), DENIED, "{pairs:?}");
    }
    assert_eq!(encrypt(&alice, &key, &[("TEAM", "x"), ("team", "y")]), "ok");
    // An Allow that demands a value is not met by one of them either.
    put(
        &f,
        &key,
        &[
            statement("Allow", &user(1000), "kms:Encrypt", &context),
            statement("Allow", &user(1000), "kms:TagResource", &tag),
        ],
    );
    for (pairs, expected) in with.into_iter().zip(["ok", DENIED, DENIED]) {
        assert_eq!(encrypt(&alice, &key, pairs), expected, "{pairs:?}");
        assert_eq!(tagged(pairs), expected, "{pairs:?}");
    }
}

#[test]
fn conditions_see_the_arguments_of_an_operation() {
    let f = Fixture::new();
    let (id, alice) = (f.key(), unix(&f.keystore, 1000));
    let key = by_id(id);
    let allow = |action: &str, condition: &str| {
        put(&f, &key, &[statement("Allow", &user(1000), action, condition)]);
    };
    allow(
        "kms:EnableKeyRotation",
        r#"{"NumericLessThanEquals":{"kms:RotationPeriodInDays":"180"}}"#,
    );
    assert_eq!(verdict(alice.enable_key_rotation(&key, Some(365), day(0))), DENIED);
    assert_eq!(verdict(alice.enable_key_rotation(&key, Some(180), day(0))), "ok");
    allow("kms:TagResource", r#"{"ForAllValues:StringEquals":{"aws:TagKeys":["Team"]}}"#);
    let tag =
        |name: &str| verdict(alice.tag_resource(&key, [(name.to_owned(), "x".to_owned())].into()));
    assert_eq!((tag("Cost"), tag("Team")), (DENIED, "ok"));
    allow(
        "kms:CreateGrant",
        r#"{"ForAllValues:StringEquals":{"kms:GrantOperations":["Decrypt"]}}"#,
    );
    let grant = |operation| {
        let operations = vec![operation];
        let grant = CreateGrant { grantee: user(1001), operations, ..CreateGrant::default() };
        verdict(alice.create_grant(&key, &grant, day(0)))
    };
    assert_eq!((grant(GrantOperation::Encrypt), grant(GrantOperation::Decrypt)), (DENIED, "ok"));
    let week = r#"{"NumericGreaterThan":{"kms:ScheduleKeyDeletionPendingWindowInDays":"7"}}"#;
    allow("kms:ScheduleKeyDeletion", week);
    assert_eq!(verdict(alice.schedule_key_deletion(id, Some(7), day(0))), DENIED);
    assert_eq!(verdict(alice.schedule_key_deletion(id, Some(8), day(0))), "ok");
}

#[test]
fn conditions_see_how_a_signature_is_made() {
    let f = Fixture::new();
    let request = CreateKey {
        spec: Some(KeySpec::EccNistP256),
        usage: Some(KeyUsage::SignVerify),
        ..CreateKey::default()
    };
    let key = by_id(f.keystore.create_key(request, day(0)).unwrap().key_id);
    let digests =
        r#"{"StringEquals":{"kms:SigningAlgorithm":"ECDSA_SHA_256","kms:MessageType":"DIGEST"}}"#;
    put(&f, &key, &[statement("Allow", &user(1000), "kms:Sign", digests)]);
    let alice = unix(&f.keystore, 1000);
    let sign = |form| verdict(alice.sign(&key, SigningAlgorithm::EcdsaSha256, form, &[7; 32]));
    assert_eq!((sign(MessageType::Raw), sign(MessageType::Digest)), (DENIED, "ok"));
}

#[test]
fn nobody_locks_themselves_out_unless_they_insist() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let only_alice =
        format!(r#"{{"Statement":{}}}"#, statement("Allow", &user(1000), "kms:*", "{}"));
    let root = root(&f.keystore);
    let error = root.put_key_policy(&key, &only_alice, LockoutCheck::Enforced).unwrap_err();
    assert_eq!(
        (error.aws_name(), error.to_string().as_str()),
        (
            "MalformedPolicyDocumentException",
            "The new key policy will not allow you to update the key policy in the future."
        )
    );
    assert_eq!(f.keystore.get_key_policy(&key).unwrap(), default_key_policy());
    root.put_key_policy(&key, &only_alice, LockoutCheck::Bypassed).unwrap();
    assert_eq!(verdict(root.get_key_policy(&key)), DENIED);
    assert_eq!(f.keystore.get_key_policy(&key).unwrap(), only_alice, "as it was given");
}

#[test]
fn a_key_is_made_with_a_policy_or_not_at_all() {
    let f = Fixture::new();
    let made = |policy: &str| {
        let request = CreateKey { policy: Some(policy.to_owned()), ..CreateKey::default() };
        root(&f.keystore).create_key(request, day(0))
    };
    assert_eq!(verdict(made("{}")), "MalformedPolicyDocumentException");
    let only_alice =
        format!(r#"{{"Statement":{}}}"#, statement("Allow", &user(1000), "kms:*", "{}"));
    assert_eq!(verdict(made(&only_alice)), "MalformedPolicyDocumentException");
    assert!(f.keystore.list_keys().unwrap().is_empty());
    let text = policy(&[]);
    let key = made(&text).unwrap().key_id;
    assert_eq!(f.reopen().get_key_policy(&by_id(key)).unwrap(), text);
    let long = format!("{text}{}", " ".repeat(32 * 1024));
    assert_eq!(verdict(made(&long)), "LimitExceededException");
}

#[test]
fn an_alias_takes_permission_on_the_alias_and_on_the_key() {
    let f = Fixture::new();
    let id = f.key();
    let alice = unix(&f.keystore, 1000);
    let create = || verdict(alice.create_alias(&"alias/a".parse().unwrap(), id, day(0)));
    put(&f, &by_id(id), &[statement("Allow", &user(1000), "kms:CreateAlias", "{}")]);
    assert_eq!(create(), DENIED);
    let on_alias = r#"{"Statement":{"Effect":"Allow","Action":"kms:CreateAlias",
        "Resource":"arn:aws:kms:local:000000000000:alias/*"}}"#;
    f.keystore.put_principal_policy(&user(1000), "aliases", on_alias).unwrap();
    assert_eq!(create(), "ok");
}

#[test]
fn policies_of_principals_are_kept_listed_and_removed() {
    let f = Fixture::new();
    let text = r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*"}}"#;
    let alice = unix(&f.keystore, 1000);
    f.keystore.put_principal_policy(&user(1000), "list", text).unwrap();
    assert_eq!(verdict(alice.list_keys()), "ok");
    assert_eq!(f.reopen().get_principal_policy(&user(1000), "list").unwrap(), text);
    let listed = f.keystore.list_principals().unwrap();
    assert_eq!(
        (listed[0].arn.as_str(), &listed[0].policy_names[..]),
        (&*user(1000), &["list".to_owned()][..])
    );
    for (arn, name, text, expected) in [
        ("alice", "x", text, "InvalidArnException"),
        (&*user(1000), "a b", text, "ValidationException"),
        (&user(1000), "x", "{}", "MalformedPolicyDocumentException"),
    ] {
        assert_eq!(verdict(f.keystore.put_principal_policy(arn, name, text)), expected);
    }
    assert_eq!(verdict(alice.put_principal_policy(&user(1000), "all", text)), DENIED);
    f.keystore.delete_principal_policy(&user(1000), "list").unwrap();
    assert_eq!(
        verdict(f.keystore.delete_principal_policy(&user(1000), "list")),
        "NotFoundException"
    );
    assert!(f.keystore.list_principals().unwrap().is_empty());
    assert_eq!(verdict(alice.list_keys()), DENIED);
}

#[test]
fn a_decision_says_how_long_and_for_what_it_holds() {
    let f = Fixture::new();
    let id = f.key();
    let at = day(0);
    let caller = Caller { at: Some(at), ..Caller::on_mount(1000, Vec::new()) };
    let mount = f.keystore.acting_for(caller);
    let ask = || mount.authorise(Action::Decrypt, id, &EncryptionContext::new()).unwrap();
    let decision = ask();
    assert_eq!((decision.denied, decision.until, decision.any_context), (None, None, true));
    let soon = r#"{"DateLessThan":{"aws:CurrentTime":"2020-01-01"}}"#;
    put(&f, &by_id(id), &[statement("Allow", &user(1000), "kms:Decrypt", soon)]);
    let decision = ask();
    assert!(decision.denied.unwrap().contains("kms:Decrypt"));
    assert_eq!(decision.until, Some(at + Duration::from_secs(1)));
    let context = r#"{"StringEquals":{"kms:EncryptionContext:a":"b"}}"#;
    put(&f, &by_id(id), &[statement("Deny", &user(1000), "kms:Decrypt", context)]);
    assert!(!ask().any_context);
}

/// Users have other ids, and no groups, in user namespaces of their own: where rules tell users apart by
/// refusing some, it counts who a process is. A Deny for a user was passed by a subordinate one.
#[test]
fn regression_a_deny_for_users_or_groups_asks_who_a_process_is() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let evadable = || f.keystore.has_evadable_rules().unwrap();
    let (ann, staff) = (user(1000), "arn:aws:iam::000000000000:group/unix/27");
    let (ci, root) = ("arn:aws:iam::000000000000:user/ci", "arn:aws:iam::000000000000:root");
    let nobody_but = |effect: &str, who: &str| {
        statement(effect, who, "kms:Sign", "{}").replace("Principal", "NotPrincipal")
    };
    let if_named = |operator: &str, fact: &str| {
        let condition = format!(r#"{{"{operator}":{{"{fact}":"unix/1000"}}}}"#);
        statement("Allow", "*", "kms:Sign", &condition)
    };
    let own_context = r#"{"StringEquals":{"kms:EncryptionContext:owner":"${aws:username}"}}"#;
    assert!(!evadable());
    for (statement, expected) in [
        (statement("Allow", "*", "kms:Encrypt", "{}"), false),
        (statement("Allow", &ann, "kms:Encrypt", "{}"), false),
        (statement("Deny", "*", "kms:Sign", "{}"), false),
        (statement("Deny", ci, "kms:Sign", "{}"), false),
        (nobody_but("Allow", root), false),
        (if_named("StringEquals", "kms:EncryptionContext:owner"), false),
        (statement("Allow", staff, "kms:Encrypt", "{}"), true),
        (statement("Deny", staff, "kms:Sign", "{}"), true),
        (statement("Deny", &ann, "kms:Sign", "{}"), true),
        (nobody_but("Allow", &ann), true),
        (nobody_but("Deny", staff), true),
        (if_named("StringNotEquals", "aws:username"), true),
        (if_named("StringNotLike", "aws:PrincipalArn"), true),
        (if_named("StringNotEqualsIfExists", "AWS:UserID"), true),
        (statement("Deny", "*", "kms:Sign", own_context), true),
    ] {
        put(&f, &key, std::slice::from_ref(&statement));
        assert_eq!(evadable(), expected, "{statement}");
    }
    put(&f, &key, &[]);
    let (allow, deny) = (identity("Allow"), identity("Deny"));
    for (who, policy, expected) in [
        (&*ann, &allow, false),
        (&*ann, &deny, true),
        (staff, &allow, true),
        (ci, &deny, false),
        (root, &deny, true),
    ] {
        f.keystore.put_principal_policy(who, "only", policy).unwrap();
        assert_eq!(evadable(), expected, "{who}: {policy}");
        f.keystore.delete_principal_policy(who, "only").unwrap();
    }
    for (grantee, expected) in [(&*ann, false), (staff, true)] {
        let (operations, grantee) = (vec![GrantOperation::Decrypt], grantee.to_owned());
        let grant = CreateGrant { grantee, operations, ..CreateGrant::default() };
        f.keystore.create_grant(&key, &grant, day(0)).unwrap();
        assert_eq!(evadable(), expected);
    }
}

fn identity(effect: &str) -> String {
    format!(r#"{{"Statement":{{"Effect":"{effect}","Action":"kms:Sign","Resource":"*"}}}}"#)
}

#[test]
fn who_is_unknown_may_do_nothing_and_hears_why() {
    let f = Fixture::new();
    let key = by_id(f.key());
    put(&f, &key, &[statement("Allow", "*", "kms:*", "{}")]);
    f.keystore
        .put_principal_policy(&user(1000), "all", &identity("Allow").replace("kms:Sign", "*"))
        .unwrap();
    let unknown = f.keystore.acting_for(Caller {
        unknown: true,
        ..Caller::new(Principal::Unix { uid: 1000 }, Source::Socket)
    });
    let error = unknown.encrypt(&key, b"x", &EncryptionContext::default()).unwrap_err();
    assert_eq!(error.aws_name(), DENIED);
    assert!(error.to_string().contains("nobody can say who the process is"), "{error}");
    assert_eq!(verdict(unknown.create_key(CreateKey::default(), day(0))), DENIED);
    assert_eq!(encrypt(&unix(&f.keystore, 1000), &key, &[]), "ok");
}
