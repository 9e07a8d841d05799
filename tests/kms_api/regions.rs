//! One server, several regions.

use std::time::{Duration, Instant};

use kmsfs::keystore::{AliasName, KeyRef};
use serde_json::{Value, json};

use crate::fixture::{Home, KEY, Kms};

fn described(kms: &Kms, region: &str, key: &(String, String)) -> Value {
    let named = json!({ "KeyId": "alias/kmsfs/default" });
    kms.endpoint(region, key).call("DescribeKey", &named).unwrap()["KeyMetadata"].clone()
}

#[test]
fn arns_have_the_region_that_the_request_was_signed_for() {
    let home = Home::new();
    let key = home.access_key(None);
    let kms = Kms::start_in(home, &["--allow-unsigned", "--region", "eu-north-1"]);
    let ireland = described(&kms, "eu-west-1", &key);
    let arn = ireland["Arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:kms:eu-west-1:000000000000:key/"), "{arn}");
    let again = kms.endpoint("eu-west-1", &key).call("DescribeKey", &json!({ "KeyId": arn }));
    assert_eq!(again.unwrap()["KeyMetadata"]["Arn"], arn);
    let unsigned = kms.call("DescribeKey", KEY).json();
    let arn = unsigned["KeyMetadata"]["Arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:kms:eu-north-1:"), "{arn}");
}

#[test]
fn a_region_can_have_a_keystore_of_its_own() {
    let home = Home::new();
    home.add_keystore("second.db");
    let key = home.access_key(None);
    let kms = Kms::start_in(home, &["--replica", "eu-west-1=second.db"]);
    let (first, second) = (described(&kms, "us-east-1", &key), described(&kms, "eu-west-1", &key));
    assert_ne!(first["KeyId"], second["KeyId"]);
    assert_eq!(described(&kms, "local", &key)["KeyId"], first["KeyId"]);
    let (code, message) = kms.home.refused(&["--listen", "127.0.0.1:0", "--replica", "second.db"]);
    assert_eq!(code, 2);
    assert!(message.contains("REGION=KEYSTORE"), "{message}");
}

#[test]
fn what_another_process_disables_is_refused() {
    let home = Home::new();
    let key = home.access_key(None);
    let kms = Kms::start_in(home, &[]);
    let endpoint = kms.endpoint("local", &key);
    let encrypt = json!({ "KeyId": "alias/kmsfs/default", "Plaintext": "aGVsbG8=" });
    endpoint.call("Encrypt", &encrypt).unwrap();
    let other = kms.home.keystore();
    let default = KeyRef::Alias(AliasName::default_key());
    other.disable_key(&default).unwrap();
    let began = Instant::now();
    let refused = loop {
        match endpoint.call("Encrypt", &encrypt) {
            Err(error) => break error,
            Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "still served"),
        }
    };
    assert_eq!(refused.aws_name(), Some("DisabledException"), "{refused}");
}
