//! Policies and requests in tables.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

const KEY: &str = "arn:aws:kms:local:000000000000:key/00000000-0000-4000-8000-000000000001";
const ROOT: &str = "arn:aws:iam::000000000000:root";
const ALICE: &str = "arn:aws:iam::000000000000:user/unix/1000";
const BOB: &str = "arn:aws:iam::000000000000:user/unix/1001";
const STAFF: &str = "arn:aws:iam::000000000000:group/unix/27";

type Facts<'a> = &'a [(&'a str, &'a [&'a str])];

/// What a policy says when somebody asks; all but the root are in the group [`STAFF`].
fn ask(policy: &Policy, arn: &str, action: &str, facts: Facts<'_>) -> Evaluation {
    let groups = if arn == ROOT { Vec::new() } else { vec![STAFF.to_owned()] };
    let conditions = |key: &ConditionKey| -> Values<'_> {
        let is = |name: &str| name.parse().as_ref() == Ok(key);
        let found = facts.iter().find(|(name, _)| is(name));
        found.map_or_else(Vec::new, |(_, all)| all.iter().map(|one| Cow::Borrowed(*one)).collect())
    };
    let requester = Requester { arn, groups: &groups };
    policy.evaluate(&Request { action, resource: KEY, requester, conditions: &conditions })
}

fn key_policy(text: &str) -> Policy {
    Policy::parse(text, Kind::Key).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A policy of one statement that allows everybody Decrypt under a condition.
fn conditional(condition: &str) -> Policy {
    key_policy(&format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Principal":"*",
            "Action":"kms:Decrypt","Resource":"*","Condition":{condition}}}}}"#
    ))
}

#[test]
fn statements_match_principals_and_actions() {
    use Evaluation::{Allow, Delegated, NoMatch};
    let deny = || Evaluation::Deny(None);
    for (principal, effect, action, expected) in [
        // For Root, Alice and Bob, who ask for kms:Decrypt.
        (r#""Principal":"*""#, "Allow", r#""Action":"kms:*""#, [Allow, Allow, Allow]),
        (r#""Principal":{"AWS":"*"}"#, "Allow", r#""Action":"*""#, [Allow, Allow, Allow]),
        (
            &format!(r#""Principal":{{"AWS":"{ROOT}"}}"#),
            "Allow",
            r#""Action":"KMS:decrypt""#,
            [Allow, Delegated, Delegated],
        ),
        (
            r#""Principal":{"AWS":"000000000000"}"#,
            "Allow",
            r#""Action":"kms:De*""#,
            [Allow, Delegated, Delegated],
        ),
        (
            r#""Principal":{"AWS":"000000000000"}"#,
            "Deny",
            r#""Action":"kms:Decrypt""#,
            [deny(), deny(), deny()],
        ),
        (
            &format!(r#""Principal":{{"AWS":["{ALICE}"]}}"#),
            "Allow",
            r#""Action":"kms:D*t""#,
            [NoMatch, Allow, NoMatch],
        ),
        (
            &format!(r#""Principal":{{"AWS":"{STAFF}"}}"#),
            "Allow",
            r#""Action":"kms:Decrypt""#,
            [NoMatch, Allow, Allow],
        ),
        (
            &format!(r#""NotPrincipal":{{"AWS":"{ALICE}"}}"#),
            "Deny",
            r#""Action":"kms:*""#,
            [deny(), NoMatch, deny()],
        ),
        (
            &format!(r#""NotPrincipal":{{"AWS":["{ALICE}","{ROOT}"]}}"#),
            "Deny",
            r#""Action":"*""#,
            [NoMatch, NoMatch, deny()],
        ),
        (
            r#""Principal":{"Service":"ec2.amazonaws.com"}"#,
            "Allow",
            r#""Action":"*""#,
            [NoMatch, NoMatch, NoMatch],
        ),
        (
            r#""Principal":"*""#,
            "Allow",
            r#""Action":["kms:Encrypt","kms:Sign"]"#,
            [NoMatch, NoMatch, NoMatch],
        ),
        (r#""Principal":"*""#, "Allow", r#""NotAction":"kms:Encrypt""#, [Allow, Allow, Allow]),
        (r#""Principal":"*""#, "Allow", r#""NotAction":"kms:*crypt""#, [NoMatch, NoMatch, NoMatch]),
    ] {
        let text = format!(
            r#"{{"Statement":[{{"Effect":"{effect}",{principal},{action},"Resource":"*"}}]}}"#
        );
        let policy = key_policy(&text);
        for (arn, expected) in [ROOT, ALICE, BOB].into_iter().zip(expected) {
            assert_eq!(ask(&policy, arn, "kms:Decrypt", &[]), expected, "{arn}: {text}");
        }
    }
}

#[test]
fn resources_match_the_key_in_any_region() {
    for (resource, expected) in [
        (r#""Resource":"*""#.to_owned(), Evaluation::Allow),
        (format!(r#""Resource":"{KEY}""#), Evaluation::Allow),
        (format!(r#""Resource":["x","{KEY}"]"#).replace("\"x\",", ""), Evaluation::Allow),
        (format!(r#""Resource":"{}""#, KEY.replace("local", "eu-west-1")), Evaluation::Allow),
        (r#""Resource":"arn:aws:kms:*:000000000000:key/*""#.to_owned(), Evaluation::Allow),
        (r#""Resource":"arn:aws:kms:local:000000000000:alias/*""#.to_owned(), Evaluation::NoMatch),
        (r#""NotResource":"*""#.to_owned(), Evaluation::NoMatch),
    ] {
        let text = format!(
            r#"{{"Statement":{{"Effect":"Allow","Principal":"*","Action":"kms:*",{resource}}}}}"#
        );
        assert_eq!(ask(&key_policy(&text), ALICE, "kms:Decrypt", &[]), expected, "{resource}");
    }
}

/// A wildcard kept the Region from being taken for this keystore's, and a Deny denied nothing.
#[test]
fn regression_an_arn_that_is_accepted_can_name_a_key() {
    let deny = |resource: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Deny","Principal":"*",
                "Action":"kms:*","Resource":"{resource}"}}}}"#
        );
        Policy::parse(&text, Kind::Key)
    };
    let facts: Facts<'_> = &[("kms:CallerAccount", &["000000000000"])];
    for resource in [
        "arn:aws:kms:eu-*:000000000000:key/*",
        "arn:aws:kms:??-west-1:000000000000:key/*",
        "arn:aws:kms::000000000000:key/*",
        "arn:aws:k*:eu-west-1:*:key/*",
        "arn:*:*:eu-west-1:0000*:*",
        "arn:aws:kms:eu-west-1:${kms:CallerAccount}:key/*",
    ] {
        let said = ask(&deny(resource).unwrap(), ALICE, "kms:Decrypt", facts);
        assert_eq!(said, Evaluation::Deny(None), "{resource}");
    }
    for resource in [
        "arn:aws:kms:${aws:username}:000000000000:key/*",
        "arn:aws:kms:eu-$:000000000000:key/*",
        "arn:aws:kms:eu-west-1:111122223333:key/*",
        "arn:aws-cn:kms:cn-north-1:000000000000:key/*",
        "arn:aws:s3:::bucket",
        "arn:aws:kms:eu-*",
    ] {
        let refused = deny(resource).unwrap_err().to_string();
        assert!(refused.starts_with("policy statement 1, Resource: "), "{resource}: {refused}");
    }
}

#[test]
fn an_explicit_deny_wins_wherever_it_stands() {
    let allow = r#"{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}"#;
    let deny = r#"{"Sid":"No","Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*"}"#;
    for statements in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
        let policy = key_policy(&format!(r#"{{"Statement":[{statements}]}}"#));
        let verdict = ask(&policy, ROOT, "kms:Decrypt", &[]);
        assert_eq!(verdict, Evaluation::Deny(Some("No".to_owned())));
    }
}

#[test]
fn conditions_compare_as_in_aws() {
    let date = "2026-06-01T12:00:00Z";
    for (condition, facts, expected) in [
        // One value, several allowed ones; a missing key fails.
        (
            r#"{"StringEquals":{"kms:ViaService":["a","kmsfs"]}}"#,
            &[("kms:ViaService", &["kmsfs"][..])][..],
            true,
        ),
        (
            r#"{"StringEquals":{"kms:ViaService":"kmsfs"}}"#,
            &[("kms:ViaService", &["KMSFS"])],
            false,
        ),
        (r#"{"StringEquals":{"kms:ViaService":"kmsfs"}}"#, &[], false),
        (r#"{"StringEqualsIfExists":{"kms:ViaService":"kmsfs"}}"#, &[], true),
        (
            r#"{"StringEqualsIfExists":{"kms:ViaService":"kmsfs"}}"#,
            &[("kms:ViaService", &["x"])],
            false,
        ),
        (
            r#"{"StringEqualsIgnoreCase":{"kms:ViaService":"KmsFs"}}"#,
            &[("kms:ViaService", &["kmsFS"])],
            true,
        ),
        // Negated: all have to differ, and a missing key passes.
        (
            r#"{"StringNotEquals":{"kms:ViaService":["a","b"]}}"#,
            &[("kms:ViaService", &["b"])],
            false,
        ),
        (
            r#"{"StringNotEquals":{"kms:ViaService":["a","b"]}}"#,
            &[("kms:ViaService", &["c"])],
            true,
        ),
        (r#"{"StringNotEquals":{"kms:ViaService":"a"}}"#, &[], true),
        (r#"{"StringNotEquals":{"aws:TagKeys":"a"}}"#, &[("aws:TagKeys", &["b", "a"])], false),
        (
            r#"{"StringNotEqualsIgnoreCase":{"kms:ViaService":"A"}}"#,
            &[("kms:ViaService", &["a"])],
            false,
        ),
        (r#"{"StringNotLike":{"kms:ViaService":"k*"}}"#, &[("kms:ViaService", &["kmsfs"])], false),
        // Patterns.
        (
            r#"{"StringLike":{"kms:RequestAlias":"alias/a?p-*"}}"#,
            &[("kms:RequestAlias", &["alias/app-1"])],
            true,
        ),
        (
            r#"{"StringEquals":{"kms:RequestAlias":"alias/*"}}"#,
            &[("kms:RequestAlias", &["alias/x"])],
            false,
        ),
        (
            r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/unix/*"}}"#,
            &[("aws:PrincipalArn", &[ALICE])],
            true,
        ),
        (
            r#"{"ArnEquals":{"aws:PrincipalArn":"arn:aws:iam::000000000000:root"}}"#,
            &[("aws:PrincipalArn", &[ALICE])],
            false,
        ),
        (
            r#"{"ArnNotLike":{"aws:PrincipalArn":"arn:aws:iam::000000000000:user/*"}}"#,
            &[("aws:PrincipalArn", &[ALICE])],
            false,
        ),
        (
            r#"{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::000000000000:root"}}"#,
            &[("aws:PrincipalArn", &[ALICE])],
            true,
        ),
        // Encryption context: names in any case, values exact.
        (
            r#"{"StringEquals":{"kms:EncryptionContext:Dept":"hr"}}"#,
            &[("kms:EncryptionContext:Dept", &["hr"])],
            true,
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:Dept":"hr"}}"#,
            &[("kms:EncryptionContext:Dept", &["HR"])],
            false,
        ),
        // Sets.
        (
            r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#,
            &[("kms:EncryptionContextKeys", &["a"])],
            true,
        ),
        (
            r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["a","b"]}}"#,
            &[("kms:EncryptionContextKeys", &["a", "c"])],
            false,
        ),
        (r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":"a"}}"#, &[], true),
        (
            r#"{"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/x"}}"#,
            &[("kms:ResourceAliases", &["alias/y", "alias/x"])],
            true,
        ),
        (r#"{"ForAnyValue:StringEquals":{"kms:ResourceAliases":"alias/x"}}"#, &[], false),
        (
            r#"{"ForAnyValue:StringNotEquals":{"aws:TagKeys":"a"}}"#,
            &[("aws:TagKeys", &["a", "b"])],
            true,
        ),
        (r#"{"ForAnyValue:StringNotEquals":{"aws:TagKeys":"a"}}"#, &[], false),
        (
            r#"{"ForAllValues:StringNotLike":{"aws:TagKeys":"a*"}}"#,
            &[("aws:TagKeys", &["ab", "b"])],
            false,
        ),
        (r#"{"ForAnyValue:StringLikeIfExists":{"aws:TagKeys":"a*"}}"#, &[], true),
        // Other types.
        (r#"{"Bool":{"kms:MultiRegion":true}}"#, &[("kms:MultiRegion", &["true"])], true),
        (r#"{"Bool":{"kms:MultiRegion":"False"}}"#, &[("kms:MultiRegion", &["true"])], false),
        (r#"{"BoolIfExists":{"aws:SecureTransport":"true"}}"#, &[], true),
        (r#"{"Null":{"kms:EncryptionContext:a":"true"}}"#, &[], true),
        (
            r#"{"Null":{"kms:EncryptionContext:a":false}}"#,
            &[("kms:EncryptionContext:a", &[""])],
            true,
        ),
        (
            r#"{"Null":{"kms:EncryptionContext:a":"true"}}"#,
            &[("kms:EncryptionContext:a", &["x"])],
            false,
        ),
        (
            r#"{"NumericLessThanEquals":{"kms:ScheduleKeyDeletionPendingWindowInDays":7}}"#,
            &[("kms:ScheduleKeyDeletionPendingWindowInDays", &["7"])],
            true,
        ),
        (
            r#"{"NumericLessThan":{"kms:ScheduleKeyDeletionPendingWindowInDays":"7"}}"#,
            &[("kms:ScheduleKeyDeletionPendingWindowInDays", &["7"])],
            false,
        ),
        (
            r#"{"NumericGreaterThan":{"kms:RotationPeriodInDays":"90"}}"#,
            &[("kms:RotationPeriodInDays", &["365"])],
            true,
        ),
        (
            r#"{"NumericNotEquals":{"kms:RotationPeriodInDays":["90","365"]}}"#,
            &[("kms:RotationPeriodInDays", &["365"])],
            false,
        ),
        (
            r#"{"NumericEquals":{"kms:RotationPeriodInDays":"90.0"}}"#,
            &[("kms:RotationPeriodInDays", &["90"])],
            true,
        ),
        (
            r#"{"NumericGreaterThanEquals":{"kms:RotationPeriodInDays":"90"}}"#,
            &[("kms:RotationPeriodInDays", &["ninety"])],
            false,
        ),
        (
            r#"{"DateLessThan":{"aws:CurrentTime":"2026-06-02"}}"#,
            &[("aws:CurrentTime", &[date])],
            true,
        ),
        (
            r#"{"DateGreaterThan":{"aws:CurrentTime":"2026-06-01T12:00:00Z"}}"#,
            &[("aws:CurrentTime", &[date])],
            false,
        ),
        (
            r#"{"DateGreaterThanEquals":{"aws:CurrentTime":"2026-06-01T14:00:00+02:00"}}"#,
            &[("aws:CurrentTime", &[date])],
            true,
        ),
        (
            r#"{"DateEquals":{"aws:EpochTime":1780315200}}"#,
            &[("aws:EpochTime", &["1780315200"])],
            true,
        ),
        (
            r#"{"DateNotEquals":{"aws:EpochTime":"1780315200"}}"#,
            &[("aws:EpochTime", &["1780315200"])],
            false,
        ),
        (
            r#"{"NumericLessThan":{"aws:EpochTime":1780315201}}"#,
            &[("aws:EpochTime", &["1780315200"])],
            true,
        ),
        (
            r#"{"IpAddress":{"aws:SourceIp":["10.0.0.0/8","192.0.2.0/24"]}}"#,
            &[("aws:SourceIp", &["192.0.2.9"])],
            true,
        ),
        (r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, &[], false),
        (
            r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#,
            &[("aws:SourceIp", &["192.0.2.9"])],
            false,
        ),
        (r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, &[], true),
        // Variables.
        (
            r#"{"StringEquals":{"kms:EncryptionContext:user":"${aws:username}"}}"#,
            &[("kms:EncryptionContext:user", &["al"]), ("aws:username", &["al"])],
            true,
        ),
        (
            r#"{"StringLike":{"kms:EncryptionContext:user":"*${aws:username}"}}"#,
            &[("kms:EncryptionContext:user", &["xal"]), ("aws:username", &["a*"])],
            false,
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:user":"${aws:username}"}}"#,
            &[("kms:EncryptionContext:user", &["${aws:username}"])],
            false,
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:user":"${aws:username, 'none'}"}}"#,
            &[("kms:EncryptionContext:user", &["none"])],
            true,
        ),
        // All operators and all keys have to hold.
        (
            r#"{"StringEquals":{"kmsfs:Source":"mount","kms:ViaService":"kmsfs"}}"#,
            &[("kmsfs:Source", &["mount"])],
            false,
        ),
        (
            r#"{"StringEquals":{"kmsfs:Source":"mount"},"Bool":{"kms:MultiRegion":"true"}}"#,
            &[("kmsfs:Source", &["mount"]), ("kms:MultiRegion", &["false"])],
            false,
        ),
    ] {
        let verdict = ask(&conditional(condition), ALICE, "kms:Decrypt", facts);
        let expected = if expected { Evaluation::Allow } else { Evaluation::NoMatch };
        assert_eq!(verdict, expected, "{condition} with {facts:?}");
    }
}

/// Of two pairs whose names differ only by case the first one counted, and who added one chose it.
#[test]
fn regression_of_names_that_differ_by_case_a_deny_means_any_and_an_allow_every_one() {
    let name = "kms:EncryptionContext:Team";
    let (one, both) = ([(name, &["pay"][..])], [(name, &["x", "pay"][..])]);
    for (condition, by_one, by_both) in [
        // What an Allow, and a Deny, says to a request with one pair and with two.
        (r#"{"StringEquals":{"kms:EncryptionContext:Team":"pay"}}"#, true, [false, true]),
        (r#"{"StringNotEquals":{"kms:EncryptionContext:Team":"pay"}}"#, false, [false, true]),
        (r#"{"StringNotEquals":{"kms:EncryptionContext:Team":"x"}}"#, true, [false, true]),
        (r#"{"StringLike":{"kms:EncryptionContext:Team":"*"}}"#, true, [true, true]),
        (
            r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContext:Team":"x"}}"#,
            false,
            [false, true],
        ),
        (
            r#"{"ForAllValues:StringEquals":{"kms:EncryptionContext:Team":"x"}}"#,
            false,
            [false, true],
        ),
        (r#"{"StringEqualsIfExists":{"kms:EncryptionContext:Team":"y"}}"#, false, [false, false]),
        (r#"{"Null":{"kms:EncryptionContext:Team":"false"}}"#, true, [true, true]),
        (
            r#"{"StringEquals":{"kms:CallerAccount":"${kms:EncryptionContext:Team}"}}"#,
            false,
            [false, true],
        ),
    ] {
        let held = |effect: &str, facts| {
            let text = format!(
                r#"{{"Version":"2012-10-17","Statement":{{"Effect":"{effect}","Principal":"*",
                    "Action":"kms:Decrypt","Resource":"*","Condition":{condition}}}}}"#
            );
            ask(&key_policy(&text), ALICE, "kms:Decrypt", facts) != Evaluation::NoMatch
        };
        for (effect, by_both) in ["Allow", "Deny"].into_iter().zip(by_both) {
            assert_eq!(held(effect, &one), by_one, "{effect} {condition}");
            assert_eq!(held(effect, &both), by_both, "{effect} {condition}, two");
        }
    }
    let resource = r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":"*",
        "Action":"kms:*","Resource":"arn:aws:kms:*:*:key/${kms:EncryptionContext:Team}"}}"#;
    for (facts, expected) in [(&one, Evaluation::NoMatch), (&both, Evaluation::Deny(None))] {
        assert_eq!(ask(&key_policy(resource), ALICE, "kms:Decrypt", facts), expected);
    }
}

#[test]
fn identity_policies_name_no_principal() {
    let text = r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys","Resource":"*"}}"#;
    let policy = Policy::parse(text, Kind::Identity).unwrap();
    assert_eq!(ask(&policy, BOB, "kms:ListKeys", &[]), Evaluation::Allow);
    let named = text.replace(r#""Action""#, r#""Principal":"*","Action""#);
    assert_eq!(
        Policy::parse(&named, Kind::Identity).unwrap_err().to_string(),
        "policy statement 1, Principal: the policy of a principal names no principals"
    );
}

#[test]
fn policies_of_the_old_version_have_no_variables() {
    let text = |version: &str| {
        format!(
            r#"{{"Version":"{version}","Statement":{{"Effect":"Allow","Principal":"*",
            "Action":"*","Resource":"*","Condition":{{"StringEquals":{{
            "kms:EncryptionContext:u":"${{aws:username}}"}}}}}}}}"#
        )
    };
    let literal: Facts<'_> =
        &[("kms:EncryptionContext:u", &["${aws:username}"]), ("aws:username", &["al"])];
    for (version, expected) in
        [("2008-10-17", Evaluation::Allow), ("2012-10-17", Evaluation::NoMatch)]
    {
        let policy = key_policy(&text(version));
        assert_eq!(ask(&policy, ALICE, "kms:Decrypt", literal), expected, "{version}");
    }
}

#[test]
fn a_policy_that_allows_everything_is_found() {
    let policy = |principal: &str, action: &str, condition: &str| {
        key_policy(&format!(
            r#"{{"Statement":[{{"Sid":"All","Effect":"Allow","Principal":{principal},
                "Action":"{action}","Resource":"*"{condition}}}]}}"#
        ))
    };
    assert_eq!(policy(r#""*""#, "kms:*", "").allows_everything(), Some((1, Some("All"))));
    let root = format!(r#"{{"AWS":"{ROOT}"}}"#);
    assert_eq!(policy(&root, "kms:*", "").allows_everything(), None);
    assert_eq!(policy(r#""*""#, "kms:D*", "").allows_everything(), None);
    let via = r#","Condition":{"StringEquals":{"kms:ViaService":"kmsfs"}}"#;
    assert_eq!(policy(r#""*""#, "*", via).allows_everything(), None);
}

/// Fragments of policies, most of which make one that parses.
fn statements() -> impl Strategy<Value = String> {
    let effect = prop_oneof![Just("Allow"), Just("Deny")];
    let principal = prop_oneof![
        Just(r#""Principal":"*""#.to_owned()),
        Just(format!(r#""Principal":{{"AWS":["{ALICE}","{ROOT}"]}}"#)),
        Just(format!(r#""NotPrincipal":{{"AWS":"{STAFF}"}}"#)),
    ];
    let action = prop_oneof![
        Just(r#""Action":"kms:*""#),
        Just(r#""NotAction":"kms:Decrypt""#),
        Just(r#""Action":["kms:De*","kms:Sign"]"#),
    ];
    let condition = prop_oneof![
        Just("{}"),
        Just(r#"{"StringEquals":{"kms:ViaService":"kmsfs"}}"#),
        Just(r#"{"ForAllValues:StringLike":{"aws:TagKeys":["${aws:username}*"]}}"#),
        Just(r#"{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#),
        Just(r#"{"Null":{"kms:KeySpec":"false"}}"#),
    ];
    let statement = (effect, principal, action, condition).prop_map(|(e, p, a, c)| {
        format!(r#"{{"Effect":"{e}",{p},{a},"Resource":"*","Condition":{c}}}"#)
    });
    proptest::collection::vec(statement, 1..5).prop_map(|all| all.join(","))
}

fn document(statements: &str) -> Policy {
    key_policy(&format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#))
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = Policy::parse(&text, Kind::Key);
    }

    #[test]
    fn a_changed_policy_parses_or_is_refused_and_never_panics(
        statements in statements(), at in any::<prop::sample::Index>(), letter in any::<char>(),
        value in ".*",
    ) {
        let mut text: Vec<char> =
            format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#).chars().collect();
        let at = at.index(text.len());
        text[at] = letter;
        let text: String = text.into_iter().collect();
        if let Ok(policy) = Policy::parse(&text, Kind::Key) {
            ask(&policy, ALICE, "kms:Decrypt", &[("aws:TagKeys", &[&value])]);
        }
    }

    #[test]
    fn a_deny_more_never_turns_a_refusal_into_an_allowance(
        before in statements(), more in statements(), via in any::<bool>(),
    ) {
        let facts: Facts<'_> =
            if via { &[("kms:ViaService", &["kmsfs"]), ("kms:KeySpec", &["x"])] } else { &[] };
        let more = more.replace(r#""Effect":"Allow""#, r#""Effect":"Deny""#);
        let (old, new) = (document(&before), document(&format!("{before},{more}")));
        for (arn, action) in [(ROOT, "kms:Sign"), (ALICE, "kms:Decrypt"), (BOB, "kms:Sign")] {
            let (old, new) = (ask(&old, arn, action, facts), ask(&new, arn, action, facts));
            let denied = matches!(new, Evaluation::Deny(_));
            prop_assert!(denied || new == old, "{old:?} became {new:?}");
        }
    }
}
