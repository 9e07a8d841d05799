//! One server, several regions.

use std::time::{Duration, Instant, SystemTime};

use kmsfs::keystore::{AliasName, CreateAccessKey, KeyRef, LockoutCheck, ReferenceReport};
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

/// Access keys were those of the first keystore, and the policies of their users those of the
/// region's: who was denied everything went to another region.
#[test]
fn regression_a_deny_of_the_account_holds_in_every_region() {
    let home = Home::new();
    let second = home.add_keystore("second.db");
    let key = home.access_key(Some("bob"));
    let bob = "arn:aws:iam::000000000000:user/bob";
    let default = KeyRef::Alias(AliasName::default_key());
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:root"},"Action":"kms:*","Resource":"*"},
        {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000000:user/bob"},
         "Action":["kms:Encrypt","kms:DescribeKey"],"Resource":"*"}]}"#;
    for keystore in [&home.keystore(), &second] {
        keystore.put_key_policy(&default, policy, LockoutCheck::Enforced).unwrap();
    }
    let kms = Kms::start_in(home, &["--replica", "eu-west-1=second.db"]);
    let region = kms.endpoint("eu-west-1", &key);
    let requests = [
        // From memory, and in a transaction.
        ("Encrypt", json!({ "KeyId": "alias/kmsfs/default", "Plaintext": "aGVsbG8=" })),
        ("DescribeKey", json!({ "KeyId": "alias/kmsfs/default" })),
    ];
    for (operation, request) in &requests {
        region.call(operation, request).unwrap();
    }
    let deny = r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#;
    kms.home.keystore().put_principal_policy(bob, "gone", deny).unwrap();
    for (operation, request) in &requests {
        let began = Instant::now();
        let refused = loop {
            match region.call(operation, request) {
                Err(error) => break error,
                Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "still served"),
            }
        };
        assert_eq!(refused.aws_name(), Some("AccessDeniedException"), "{refused}");
        assert!(refused.to_string().contains("identity-based policy"), "{refused}");
    }
    kms.home.keystore().delete_principal_policy(bob, "gone").unwrap();
    let began = Instant::now();
    while region.call("Encrypt", &requests[0].1).is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "still refused");
    }
    // What the region's own keystore says about him counts as well.
    second.put_principal_policy(bob, "gone", deny).unwrap();
    let began = Instant::now();
    while region.call("Encrypt", &requests[0].1).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "still served");
    }
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

/// A host took keys from the keystore of another Region with an access key of the first: that one did
/// not know, and retired the material that the host's vault needs.
#[test]
fn regression_a_host_is_remembered_by_the_keystore_that_it_takes_keys_from() {
    let home = Home::new();
    let second = home.add_keystore("second.db");
    let request = CreateAccessKey { for_volumes: true, ..CreateAccessKey::default() };
    let made = home.keystore().create_access_key(&request, SystemTime::now()).unwrap();
    let key = (made.id, made.secret.to_string());
    let kms = Kms::start_in(home, &["--replica", "eu-west-1=second.db"]);
    assert!(!second.has_served_hosts().unwrap());
    let endpoint = kms.endpoint("eu-west-1", &key);
    let mut wanted = json!({
        "KeyId": "alias/kmsfs/default",
        "KeySpec": "AES_256",
        "EncryptionContext": { "app": "x" },
    });
    endpoint.call("GenerateDataKey", &wanted).unwrap();
    assert!(!second.has_served_hosts().unwrap(), "that was no volume");
    wanted["EncryptionContext"] = json!({ "kmsfs:volume": "x" });
    endpoint.call("GenerateDataKey", &wanted).unwrap();
    assert!(second.has_served_hosts().unwrap());
    let default = KeyRef::Alias(AliasName::default_key());
    let old = second.current_material(second.resolve(&default).unwrap()).unwrap();
    second.rotate_key_on_demand(&default, SystemTime::now()).unwrap();
    let report = ReferenceReport { ciphertexts_checked: true, ..ReferenceReport::default() };
    let refused = second.retire_material(&default, old, &report).unwrap_err();
    assert!(refused.to_string().contains("other hosts"), "{refused}");
}
