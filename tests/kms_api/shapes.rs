//! The table of operations is AWS's: all of them are there, and requests are refused in AWS's words.

use kmsfs::keystore::{Caller, Principal, Source};
use kmsfs::server::dispatch;
use kmsfs::server::keystores::Keystores;
use serde_json::{Value, json};

use crate::fixture::Home;

/// Source: AWS KMS API, version 2014-11-01, as of botocore 1.44.
const OPERATIONS: &str = "CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore \
    CreateGrant CreateKey Decapsulate Decrypt DeleteAlias DeleteCustomKeyStore \
    DeleteImportedKeyMaterial DeriveSharedSecret DescribeCustomKeyStores DescribeKey DisableKey \
    DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encapsulate Encrypt \
    GenerateDataKey GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext \
    GenerateDataKeyWithoutPlaintext GenerateMac GenerateRandom GetKeyLastUsage GetKeyPolicy \
    GetKeyRotationStatus GetParametersForImport GetPublicKey ImportKeyMaterial ListAliases \
    ListGrants ListKeyPolicies ListKeyRotations ListKeys ListResourceTags ListRetirableGrants \
    PutKeyPolicy ReEncrypt ReplicateKey RetireGrant RevokeGrant RotateKeyOnDemand \
    ScheduleKeyDeletion Sign TagResource UntagResource UpdateAlias UpdateCustomKeyStore \
    UpdateKeyDescription UpdatePrimaryRegion Verify VerifyMac";

#[test]
fn every_operation_of_aws_kms_is_there_once_and_no_other() {
    let mut names: Vec<&str> = dispatch::operations().map(|operation| operation.name).collect();
    names.sort_unstable();
    assert_eq!(names, OPERATIONS.split_whitespace().collect::<Vec<_>>());
}

#[test]
fn broken_constraints_are_told_all_at_once_and_in_the_words_of_aws() {
    let home = Home::new();
    let keystores = Keystores::new(home.keystore());
    let what = "failed to satisfy constraint: Member must";
    for (operation, request, error, message) in [
        (
            "DescribeKey",
            json!({}),
            "ValidationException",
            format!("1 validation error detected: Value null at 'keyId' {what} not be null"),
        ),
        (
            "DescribeKey",
            json!({ "KeyId": "" }),
            "ValidationException",
            format!(
                "1 validation error detected: Value '' at 'keyId' {what} have length greater than or equal to 1"
            ),
        ),
        (
            "DescribeKey",
            json!({ "KeyId": 1 }),
            "SerializationException",
            "NUMBER_VALUE can not be converted to a String".to_owned(),
        ),
        (
            "ListKeys",
            json!({ "Limit": 1001 }),
            "ValidationException",
            format!(
                "1 validation error detected: Value '1001' at 'limit' {what} have value less than or equal to 1000"
            ),
        ),
        (
            "GenerateDataKey",
            json!({ "KeyId": "x", "KeySpec": "AES_1" }),
            "ValidationException",
            format!(
                "1 validation error detected: Value 'AES_1' at 'keySpec' {what} satisfy enum value set: \
             [AES_256, AES_128]"
            ),
        ),
        (
            "Encrypt",
            json!({ "KeyId": "x", "Plaintext": "" }),
            "ValidationException",
            format!(
                "1 validation error detected: Value at 'plaintext' {what} have length greater than or equal to 1"
            ),
        ),
        (
            "Encrypt",
            json!({ "KeyId": "x", "Plaintext": "?" }),
            "SerializationException",
            "Invalid base64 in a blob".to_owned(),
        ),
        (
            "UntagResource",
            json!({ "KeyId": "x", "TagKeys": ["a", ""] }),
            "ValidationException",
            format!(
                "1 validation error detected: Value '[a, ]' at 'tagKeys' {what} satisfy constraint: [Member \
             must have length less than or equal to 128, Member must have length greater than or equal \
             to 1]"
            ),
        ),
        (
            "CreateAlias",
            json!({ "AliasName": "a b", "TargetKeyId": "" }),
            "ValidationException",
            format!(
                "2 validation errors detected: Value 'a b' at 'aliasName' {what} satisfy regular expression \
             pattern: ^[a-zA-Z0-9:/_-]+$; Value '' at 'targetKeyId' {what} have length greater than or \
             equal to 1"
            ),
        ),
    ] {
        let caller = Caller::new(Principal::Owner, Source::Network);
        let body = request.to_string();
        let answer = dispatch::call(&keystores, None, operation, body.as_bytes(), caller);
        let found: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(found, json!({ "__type": error, "message": message }), "{operation} {body}");
        assert_eq!(answer.status, 400);
    }
}

#[test]
fn an_arn_has_the_region_of_its_request_and_no_other_is_taken() {
    let home = Home::new();
    let keystores = Keystores::new(home.keystore());
    let ask = |region, key: &str| {
        let body = json!({ "KeyId": key }).to_string();
        let caller = Caller::new(Principal::Owner, Source::Network);
        let answer = dispatch::call(&keystores, region, "DescribeKey", body.as_bytes(), caller);
        serde_json::from_slice::<Value>(&answer.body).unwrap()
    };
    let here = ask(Some("eu-west-1"), "alias/kmsfs/default");
    let arn = here["KeyMetadata"]["Arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:kms:eu-west-1:000000000000:key/"), "{arn}");
    assert_eq!(ask(Some("eu-west-1"), arn)["KeyMetadata"]["Arn"], *arn);
    assert_eq!(ask(Some("us-east-1"), arn)["message"], "Invalid arn eu-west-1");
    let message = ask(Some("us-east-1"), "12345678-1234-4234-8234-123456789012")["message"].clone();
    let missing = "arn:aws:kms:us-east-1:000000000000:key/12345678-1234-4234-8234-123456789012";
    assert_eq!(message, format!("Key '{missing}' does not exist"));
}
