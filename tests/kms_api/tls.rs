//! TLS where others can connect.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use kmsfs::endpoint::{Credentials, Endpoint, EndpointError, Options};
use rustix::process::Signal;
use serde_json::json;

use crate::fixture::{Home, Kms};

/// Writes a certificate of `localhost` and its key.
fn identity(home: &Home) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(home.path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(home.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(home.path("key.pem"), PermissionsExt::from_mode(0o600)).unwrap();
}

const TLS: [&str; 4] = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];

fn endpoint(kms: &Kms, key: &(String, String), ca: &str) -> Endpoint {
    let port = kms.address().rsplit_once(':').unwrap().1;
    let address = format!("https://localhost:{port}").parse().unwrap();
    let credentials = Credentials::new(&key.0, &key.1, None);
    let ca = kms.home.path(ca);
    let quick = Options { attempt: Duration::from_secs(5), patience: Duration::from_millis(200) };
    Endpoint::new(address, None, credentials, Some(&ca), quick).unwrap()
}

#[test]
fn addresses_that_others_can_reach_need_tls_and_signatures() {
    let home = Home::new();
    let (code, message) = home.refused(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(message.contains("add --tls-cert and --tls-key"), "{message}");
    identity(&home);
    let open = [&["--listen", "0.0.0.0:0", "--allow-unsigned"], TLS.as_slice()].concat();
    let (code, message) = home.refused(&open);
    assert_eq!(code, 2);
    assert!(message.contains("unsigned requests are for loopback"), "{message}");
    let (code, message) = home.refused(&[]);
    assert_eq!(code, 2);
    assert!(message.contains("nowhere to listen"), "{message}");
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let home = Home::new();
    identity(&home);
    fs::set_permissions(home.path("key.pem"), PermissionsExt::from_mode(0o644)).unwrap();
    let (code, message) = home.refused(&[&["--listen", "0.0.0.0:0"], TLS.as_slice()].concat());
    assert_eq!(code, 1);
    assert!(message.contains("chmod 600"), "{message}");
}

#[test]
fn calls_go_through_tls_to_a_certificate_that_is_trusted() {
    let home = Home::new();
    identity(&home);
    let key = home.access_key(None);
    let kms = Kms::spawn(home, &[&["serve", "--listen", "0.0.0.0:0"], TLS.as_slice()].concat());
    assert!(kms.address().starts_with("https://"), "{}", kms.address());
    let named = json!({ "KeyId": "alias/kmsfs/default" });
    endpoint(&kms, &key, "cert.pem").call("DescribeKey", &named).unwrap();

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(kms.home.path("other.pem"), other.cert.pem()).unwrap();
    let refused = endpoint(&kms, &key, "other.pem").call("DescribeKey", &named).unwrap_err();
    assert!(matches!(refused, EndpointError::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[test]
fn a_new_certificate_is_taken_on_sighup_and_a_bad_one_is_not() {
    let home = Home::new();
    identity(&home);
    let key = home.access_key(None);
    let kms = Kms::spawn(home, &[&["serve", "--listen", "127.0.0.1:0"], TLS.as_slice()].concat());
    let named = json!({ "KeyId": "alias/kmsfs/default" });
    fs::copy(kms.home.path("cert.pem"), kms.home.path("old.pem")).unwrap();
    endpoint(&kms, &key, "old.pem").call("DescribeKey", &named).unwrap();

    fs::write(kms.home.path("cert.pem"), "broken").unwrap();
    kms.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(300));
    endpoint(&kms, &key, "old.pem").call("DescribeKey", &named).unwrap();

    identity(&kms.home);
    kms.signal(Signal::HUP);
    let began = Instant::now();
    while endpoint(&kms, &key, "cert.pem").call("DescribeKey", &named).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    endpoint(&kms, &key, "old.pem").call("DescribeKey", &named).unwrap_err();
}
