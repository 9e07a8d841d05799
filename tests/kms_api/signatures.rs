//! Requests that are not signed as they should be.

use std::time::{Duration, Instant, SystemTime};

use kmsfs::endpoint::Credentials;
use kmsfs::endpoint::sigv4::{self, Scope, Signable};
use kmsfs::keystore::AccessKeyStatus;
use serde_json::json;

use crate::fixture::{Answer, Home, KEY, Kms, exchange, request};

/// The headers that sign a request for DescribeKey.
fn signed(key: &(String, String), body: &str, at: SystemTime) -> Vec<(String, String)> {
    let headers = vec![
        ("content-type", "application/x-amz-json-1.1"),
        ("host", "localhost"),
        ("x-amz-target", "TrentService.DescribeKey"),
    ];
    let signable = Signable { method: "POST", target: "/", headers, body: body.as_bytes() };
    let scope = Scope { region: "local", service: "kms", at };
    sigv4::sign(&signable, scope, &Credentials::new(&key.0, &key.1, None)).unwrap()
}

fn send(kms: &Kms, operation: &str, headers: &[(String, String)], body: &str) -> Answer {
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    exchange(&mut kms.connect(), &request(operation, &headers, body))
}

fn server() -> (Kms, (String, String)) {
    let home = Home::new();
    let key = home.access_key(None);
    (Kms::start_in(home, &[]), key)
}

#[track_caller]
fn assert_refused(answer: &Answer, name: &str, part: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (400, name), "{}", answer.body);
    assert!(answer.message().contains(part), "{}", answer.body);
}

const INVALID: &str = "InvalidSignatureException";

#[test]
fn only_the_owner_of_an_access_key_gets_in() {
    let (kms, key) = server();
    let now = SystemTime::now();
    assert_eq!(send(&kms, "DescribeKey", &signed(&key, KEY, now), KEY).status, 200);
    let missing = "MissingAuthenticationTokenException";
    assert_refused(&kms.call("DescribeKey", KEY), missing, "Missing Authentication Token");
    let unknown = ("AKIAUNKNOWN".to_owned(), key.1.clone());
    let answer = send(&kms, "DescribeKey", &signed(&unknown, KEY, now), KEY);
    assert_refused(&answer, "UnrecognizedClientException", "security token");
    let wrong = (key.0, "wrong".to_owned());
    let answer = send(&kms, "DescribeKey", &signed(&wrong, KEY, now), KEY);
    assert_refused(&answer, INVALID, "does not match the signature you provided");
}

#[test]
fn nothing_that_was_signed_can_be_changed() {
    let (kms, key) = server();
    let headers = signed(&key, KEY, SystemTime::now());
    let other_body = KEY.replace("default", "another");
    assert_refused(&send(&kms, "DescribeKey", &headers, &other_body), INVALID, "does not match");
    assert_refused(&send(&kms, "DisableKey", &headers, KEY), INVALID, "does not match");
    let mut twice = headers;
    twice.push(("x-amz-target".into(), "TrentService.DisableKey".into()));
    assert_refused(&send(&kms, "DescribeKey", &twice, KEY), INVALID, "does not match");
}

#[test]
fn an_old_signature_has_expired() {
    let (kms, key) = server();
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let old = signed(&key, KEY, SystemTime::now() - minutes(6));
    assert_refused(&send(&kms, "DescribeKey", &old, KEY), INVALID, "Signature expired: ");
    let early = signed(&key, KEY, SystemTime::now() + minutes(6));
    assert_refused(&send(&kms, "DescribeKey", &early, KEY), INVALID, "Signature not yet current: ");
}

#[test]
fn equal_requests_of_one_moment_are_served_and_a_replay_is_not() {
    let (kms, key) = server();
    let headers = signed(&key, KEY, SystemTime::now());
    for _ in 0..3 {
        assert_eq!(send(&kms, "DescribeKey", &headers, KEY).status, 200);
    }
    std::thread::sleep(Duration::from_millis(5200));
    let replay = send(&kms, "DescribeKey", &headers, KEY);
    assert_refused(&replay, INVALID, "already received");
}

#[test]
fn where_unsigned_requests_are_taken_a_wrong_signature_still_is_not() {
    let home = Home::new();
    let key = home.access_key(None);
    let kms = Kms::start_in(home, &["--allow-unsigned"]);
    let now = SystemTime::now();
    assert_eq!(kms.call("DescribeKey", KEY).status, 200);
    let unknown = ("test".to_owned(), "test".to_owned());
    assert_eq!(send(&kms, "DescribeKey", &signed(&unknown, KEY, now), KEY).status, 200);
    let wrong = (key.0, "wrong".to_owned());
    let answer = send(&kms, "DescribeKey", &signed(&wrong, KEY, now), KEY);
    assert_refused(&answer, INVALID, "does not match");
}

/// A user without permissions became the root of the account when the access key was disabled.
#[test]
fn regression_where_unsigned_requests_are_taken_an_ended_access_key_is_not() {
    let home = Home::new();
    let (disabled, deleted) = (home.access_key(None), home.access_key(None));
    let kms = Kms::start_in(home, &["--allow-unsigned"]);
    kms.home.keystore().update_access_key(&disabled.0, AccessKeyStatus::Inactive).unwrap();
    kms.home.keystore().delete_access_key(&deleted.0).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    for key in [&disabled, &deleted, &("AKIAABCDEFGHIJKLMNOP".to_owned(), "x".to_owned())] {
        let answer = send(&kms, "DescribeKey", &signed(key, KEY, SystemTime::now()), KEY);
        assert_refused(&answer, "UnrecognizedClientException", "");
    }
    let other = ("AKIAIOSFODNN7EXAMPL0".to_owned(), "x".to_owned());
    assert_eq!(send(&kms, "DescribeKey", &signed(&other, KEY, SystemTime::now()), KEY).status, 200);
}

#[test]
fn an_access_key_that_is_switched_off_is_refused() {
    let (kms, key) = server();
    let endpoint = kms.endpoint("local", &key);
    let named = json!({ "KeyId": "alias/kmsfs/default" });
    endpoint.call("DescribeKey", &named).unwrap();
    kms.home.keystore().update_access_key(&key.0, AccessKeyStatus::Inactive).unwrap();
    let began = Instant::now();
    let refused = loop {
        match endpoint.call("DescribeKey", &named) {
            Err(error) => break error,
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "still served"),
        }
    };
    assert_eq!(refused.aws_name(), Some("UnrecognizedClientException"), "{refused}");
}

#[test]
fn a_user_of_an_access_key_needs_permission() {
    let home = Home::new();
    let key = home.access_key(Some("ci"));
    let kms = Kms::start_in(home, &[]);
    let encrypt = json!({ "KeyId": "alias/kmsfs/default", "Plaintext": "aGVsbG8=" });
    let refused = kms.endpoint("local", &key).call("Encrypt", &encrypt).unwrap_err();
    assert_eq!(refused.aws_name(), Some("AccessDeniedException"));
    let said = refused.to_string();
    assert!(said.contains("User: arn:aws:iam::000000000000:user/ci"), "{said}");
}
