//! `kmsfs kms`: the operations of AWS KMS, typed as for the AWS CLI.

use std::fs;

use serde_json::{Value, json};

use crate::machine::{Machine, keyed};

fn machine() -> Machine {
    let machine = Machine::with_vault();
    machine.ok(&keyed(&["key", "create", "--alias", "alias/app"]));
    machine
}

fn kms(machine: &Machine, words: &[&str]) -> Value {
    let text = machine.ok(&keyed(&[&["kms"][..], words].concat()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_file_is_encrypted_and_decrypted_with_its_context() {
    let machine = machine();
    fs::write(machine.path("plain"), b"\0secret").unwrap();
    let context = ["--encryption-context", "a=b,c=d=e"];
    let words = ["encrypt", "--key-id", "alias/app", "--plaintext", "fileb://plain"];
    let made = kms(&machine, &[&words[..], &context].concat());
    let blob = made["CiphertextBlob"].as_str().unwrap();
    let decrypt = ["decrypt", "--ciphertext-blob", blob];
    let opened = kms(&machine, &[&decrypt[..], &context].concat());
    assert_eq!(opened["Plaintext"], "AHNlY3JldA==");
    assert_eq!(opened["KeyId"], made["KeyId"]);
    machine.fails(&keyed(&[&["kms"][..], &decrypt[..]].concat()), 1, "InvalidCiphertextException");
}

#[test]
fn lists_maps_and_whole_requests_are_taken() {
    let machine = machine();
    let tags = ["--tags", "TagKey=team,TagValue=blue", "TagKey=cost,TagValue=7"];
    let made = kms(&machine, &[&["create-key", "--description", "books"], &tags[..]].concat());
    let key = made["KeyMetadata"]["KeyId"].as_str().unwrap();
    let listed = kms(&machine, &["list-resource-tags", "--key-id", key, "--limit", "1"]);
    assert_eq!(listed["Tags"], json!([{ "TagKey": "cost", "TagValue": "7" }]));
    assert_eq!(listed["Truncated"], true);
    let request = json!({ "KeyId": key, "KeySpec": "AES_128" });
    fs::write(machine.path("request.json"), request.to_string()).unwrap();
    let words = ["generate-data-key", "--cli-input-json", "file://request.json"];
    assert_eq!(kms(&machine, &words)["Plaintext"].as_str().unwrap().len(), 24);
    assert_eq!(machine.ok(&keyed(&["kms", "disable-key", "--key-id", key])), "");
}

#[test]
fn refusals_keep_the_words_of_aws_and_the_codes_of_this_program() {
    let machine = machine();
    let absent = "Key 'arn:aws:kms:local:000000000000:key/12345678-1234-4234-8234-123456789012'";
    for (words, code, message) in [
        (&["describe-key"][..], 2, "Value null at 'keyId'"),
        (&["describe-key", "--key-id", "12345678-1234-4234-8234-123456789012"], 12, absent),
        (&["enable-key", "--key-id", "alias/app"], 12, "Invalid keyId 'alias/app'"),
        (
            &["encrypt", "--key-id", "alias/app", "--plaintext", "eA==", "--dry-run"],
            1,
            "DryRunOperationException",
        ),
        (&["list-keys", "--limit", "x"], 2, "'x' is not a whole number"),
        (&["list-keys", "--cli-input-json", "absent.json"], 2, "absent.json"),
        (&["nothing"], 2, ""),
        (&["list-keys", "--colour", "red"], 2, ""),
    ] {
        machine.fails(&keyed(&[&["kms"][..], words].concat()), code, message);
    }
}

#[test]
fn every_operation_has_help() {
    let machine = Machine::new();
    let list = machine.ok(&["kms", "--help"]);
    for operation in ["create-key", "generate-data-key-pair-without-plaintext", "verify-mac"] {
        assert!(list.contains(operation), "{operation}");
    }
    let help = machine.ok(&["kms", "create-grant", "--help"]);
    assert!(help.contains("--grantee-principal") && help.contains("--no-dry-run"), "{help}");
}
