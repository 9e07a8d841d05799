//! The checks of `kmsfs doctor` that are about who may do what: policies and access keys.

use std::time::SystemTime;

use serde_json::Value;

use super::findings::{Findings, Severity};
use crate::cli::report::exit::CliError;
use crate::keystore::policy::{Kind, Policy};
use crate::keystore::{AccessKeyStatus, Keystore, UnixTime};

/// Policies that allow more than anybody should.
pub(in crate::cli) fn policies(
    keystore: &Keystore,
    findings: &mut Findings,
) -> Result<(), CliError> {
    for key in keystore.list_keys()? {
        let text = keystore.get_key_policy(&key.key_id.into())?;
        let whose = format!("the policy of key {}", key.key_id);
        judge(&whose, &text, Kind::Key, findings);
    }
    for principal in keystore.list_principals()? {
        for name in &principal.policy_names {
            let text = keystore.get_principal_policy(&principal.arn, name)?;
            let whose = format!("the policy {name} of {}", principal.arn);
            judge(&whose, &text, Kind::Identity, findings);
        }
    }
    Ok(())
}

fn judge(whose: &str, text: &str, kind: Kind, findings: &mut Findings) {
    if allows_everybody(text) {
        findings.add(
            Severity::Error,
            "policies",
            format!("{whose} allows everybody, without a condition"),
            "name principals in it, or add a condition such as kms:ViaService",
        );
    }
    let Ok(policy) = Policy::parse(text, kind) else { return };
    if let Some((number, sid)) = policy.allows_everything() {
        let statement = sid.map_or_else(|| number.to_string(), str::to_owned);
        findings.add(
            Severity::Warning,
            "policies",
            format!("{whose} allows every operation to others than root (statement {statement})"),
            "allow the operations that are needed: who may put policies may give everything away",
        );
    }
}

/// True if a statement allows something to everybody, under no condition.
fn allows_everybody(text: &str) -> bool {
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let statements = match &document["Statement"] {
        Value::Array(many) => many.as_slice(),
        one => std::slice::from_ref(one),
    };
    statements.iter().any(|statement| {
        statement["Effect"] == "Allow"
            && statement["Condition"].as_object().is_none_or(serde_json::Map::is_empty)
            && (is_everybody(&statement["Principal"])
                || is_everybody(&statement["Principal"]["AWS"]))
    })
}

fn is_everybody(principal: &Value) -> bool {
    principal == "*" || principal.as_array().is_some_and(|all| all.iter().any(|one| one == "*"))
}

/// Access keys that are old, or that nobody uses.
pub(in crate::cli) fn access_keys(
    keystore: &Keystore,
    findings: &mut Findings,
) -> Result<(), CliError> {
    let now = UnixTime::from(SystemTime::now()).seconds();
    for key in keystore.list_access_keys()? {
        if key.status != AccessKeyStatus::Active {
            continue;
        }
        let id = &key.access_key_id;
        let age = now - key.create_date.seconds();
        if age > QUARTER {
            findings.add(
                Severity::Warning,
                "access-keys",
                format!("access key {id} is from {}", key.create_date),
                "make another with 'kmsfs access-key create', then delete this one",
            );
        }
        if key.last_used_date.is_none() && age > DAY {
            findings.add(
                Severity::Note,
                "access-keys",
                format!("access key {id} was never used"),
                format!("'kmsfs access-key delete {id}' removes it"),
            );
        }
    }
    Ok(())
}

const DAY: i64 = 86_400;
const QUARTER: i64 = 90 * DAY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_found_in_each_form_and_a_condition_excuses() {
        let policy = |principal: &str, more: &str| {
            format!(
                r#"{{"Statement":{{"Effect":"Allow","Principal":{principal},"Action":"kms:Decrypt"{more}}}}}"#
            )
        };
        for everybody in [r#""*""#, r#"{"AWS":"*"}"#, r#"{"AWS":["arn:x","*"]}"#] {
            assert!(allows_everybody(&policy(everybody, "")), "{everybody}");
            let condition = r#","Condition":{"StringEquals":{"kms:ViaService":"kmsfs"}}"#;
            assert!(!allows_everybody(&policy(everybody, condition)), "{everybody}");
        }
        assert!(!allows_everybody(&policy(r#"{"AWS":"arn:aws:iam::000000000000:root"}"#, "")));
        assert!(!allows_everybody("nonsense"));
        assert!(!allows_everybody(crate::keystore::default_key_policy()));
    }
}
