//! `kmsfs key policy`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::args::access::KeyPolicyCommand;
use crate::cli::report::exit::CliError;
use crate::cli::report::output::Output;
use crate::keystore::policy::{Kind, Policy};
use crate::keystore::{KeyRef, Keystore, LockoutCheck, default_key_policy};

/// Runs one of the commands.
pub(in crate::cli) fn run(
    keystore: &Keystore,
    command: &KeyPolicyCommand,
    output: Output,
) -> Result<(), CliError> {
    match command {
        KeyPolicyCommand::Show { key } => {
            let policy = keystore.get_key_policy(&key.parse()?)?;
            output.result(&json!({ "Policy": document(&policy) }), || policy);
            Ok(())
        }
        KeyPolicyCommand::Set { key, file, .. } => {
            let policy = file.as_deref().map_or_else(|| Ok(default_key_policy().into()), read)?;
            set(keystore, &key.parse()?, &policy, output)
        }
    }
}

fn set(keystore: &Keystore, key: &KeyRef, policy: &str, output: Output) -> Result<(), CliError> {
    // Whoever has the secret of the keystore is never locked out.
    let key = keystore.put_key_policy(key, policy, LockoutCheck::Bypassed)?;
    let limitless = Policy::parse(policy, Kind::Key).ok();
    let limitless = limitless.as_ref().and_then(Policy::allows_everything);
    if let Some((number, _)) = limitless {
        output.note(&format!(
            "statement {number} allows every operation, deletion too, to others than the root of \
             the account: name the operations instead of kms:*"
        ));
    }
    output.result(&json!({ "KeyId": key.to_string(), "PolicyName": "default" }), || {
        format!("key {key} has the new policy; live mounts notice within a second")
    });
    Ok(())
}

/// A policy document: JSON where it is JSON.
pub(in crate::cli) fn document(policy: &str) -> Value {
    serde_json::from_str(policy).unwrap_or_else(|_| policy.into())
}

/// The text of a file, or of stdin for `-`.
pub(in crate::cli) fn read(file: &Path) -> Result<String, CliError> {
    let is_stdin = file == Path::new("-");
    let text = || -> io::Result<String> {
        let input: Box<dyn Read> =
            if is_stdin { Box::new(io::stdin()) } else { Box::new(File::open(file)?) };
        let mut text = String::new();
        input.take(MAX_INPUT).read_to_string(&mut text)?;
        Ok(text)
    };
    text().map_err(|error| match is_stdin {
        true => CliError::io("cannot read the policy from stdin", &error),
        false => CliError::io(file.display(), &error),
    })
}

/// Longer than any policy may be.
const MAX_INPUT: u64 = 1 << 20;
