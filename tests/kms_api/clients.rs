//! boto3, the AWS CLI and the AWS Encryption SDK, unmodified, against a server with two keystores.
//! The suites are the Python files beside this one.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::fixture::{Home, Kms};

/// Runs one suite and fails with what it printed.
fn passes(suite: &str) {
    let python = tools().join("venv/bin/python");
    assert!(python.exists(), "{} is missing: run tests/install-tools.sh", python.display());
    let home = Home::new();
    home.add_keystore("second.db");
    let credentials = json!({
        "root": home.access_key(None),
        "alice": home.access_key(Some("alice")),
        "bob": home.access_key(Some("bob")),
    });
    let regions = ["--region", "us-east-1", "--replica", "eu-west-1=second.db"];
    let kms = Kms::start_in(home, &regions);
    let done = Command::new(python)
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kms_api/run.py"))
        .arg(suite)
        .env("KMS_ENDPOINT", kms.address())
        .env("KMS_CREDENTIALS", credentials.to_string())
        .env("KMS_REGIONS", r#"["us-east-1", "eu-west-1"]"#)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}\n{}", String::from_utf8_lossy(&done.stdout));
}

fn tools() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    target.unwrap_or_else(own).join("tools")
}

macro_rules! suites {
    ($($suite:ident),* $(,)?) => {$(
        #[test]
        fn $suite() {
            passes(stringify!($suite));
        }
    )*};
}

suites! {
    test_access,
    test_asymmetric,
    test_cli,
    test_crypto,
    test_encryption_sdk,
    test_import,
    test_keys,
    test_regions,
    test_states,
}
