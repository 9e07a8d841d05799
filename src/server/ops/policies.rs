//! Key policies.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Fault, KEY_ID, LIMIT, MARKER, Member, Operation, shapes};
use crate::keystore::{DEFAULT_POLICY_NAME, LockoutCheck};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "PutKeyPolicy",
        about: "Replace the policy of a key",
        members: &[
            KEY_ID,
            POLICY_NAME,
            Member::needed("Policy", &shapes::POLICY),
            Member::optional("BypassPolicyLockoutSafetyCheck", &shapes::FLAG),
        ],
        run: put_key_policy,
    },
    Operation {
        name: "GetKeyPolicy",
        about: "Show the policy of a key",
        members: &[KEY_ID, POLICY_NAME],
        run: key_policy,
    },
    Operation {
        name: "ListKeyPolicies",
        about: "List the names of the policies of a key: there is one",
        members: &[KEY_ID, LIMIT, MARKER],
        run: list_key_policies,
    },
];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PolicyRequest {
    policy_name: Option<String>,
    policy: Option<String>,
    #[serde(default)]
    bypass_policy_lockout_safety_check: bool,
}

impl PolicyRequest {
    /// Errors: `NotFoundException` for a name that no policy has.
    fn check_name(&self) -> Result<(), Fault> {
        match &self.policy_name {
            Some(name) if name != DEFAULT_POLICY_NAME => {
                Err(Fault::not_found(format!("No such policy exists: {name}")))
            }
            _ => Ok(()),
        }
    }
}

/// What a request says about the check that nobody locks themselves out.
pub(super) fn lockout(bypass: bool) -> LockoutCheck {
    if bypass { LockoutCheck::Bypassed } else { LockoutCheck::Enforced }
}

fn put_key_policy(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: PolicyRequest = call.read()?;
    asked.check_name()?;
    let policy = call.region.inward(&asked.policy.unwrap_or_default());
    let check = lockout(asked.bypass_policy_lockout_safety_check);
    call.keystore.put_key_policy(&call.key_id()?.into(), &policy, check)?;
    Ok(Value::Null)
}

fn key_policy(call: &Call<'_>) -> Result<Value, Fault> {
    let asked: PolicyRequest = call.read()?;
    let policy = call.keystore.get_key_policy(&call.key_id()?.into())?;
    asked.check_name()?;
    Ok(json!({ "Policy": call.region.outward(&policy), "PolicyName": DEFAULT_POLICY_NAME }))
}

fn list_key_policies(call: &Call<'_>) -> Result<Value, Fault> {
    let names = call.keystore.list_key_policies(&call.key_id()?.into())?;
    Ok(call.page(100, names, Clone::clone)?.answer("PolicyNames", Value::from))
}

const POLICY_NAME: Member = Member::optional("PolicyName", &shapes::POLICY_NAME);
