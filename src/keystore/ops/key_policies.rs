//! PutKeyPolicy, GetKeyPolicy, ListKeyPolicies, and the policy of keys that were given none.

use crate::id::KeyId;
use crate::keystore::Keystore;
use crate::keystore::access::decision;
use crate::keystore::access::request::Asked;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::Caller;
use crate::keystore::model::id::KeyRef;
use crate::keystore::policy::{Fact, Kind, Policy};
use crate::keystore::records::key::{KeyRecord, Operation};
use crate::keystore::storage::sealed::Reader;

/// The only name that a key policy has.
pub const DEFAULT_POLICY_NAME: &str = "default";

/// Whether a policy may take from the caller the right to change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LockoutCheck {
    /// It may not.
    #[default]
    Enforced,
    /// It may: `BypassPolicyLockoutSafetyCheck`.
    Bypassed,
}

/// The policy of a key that was given none: the root of the account may do everything and leave
/// it to the account's policies who else may; and whoever gets at a file through a mount may use
/// the key for it, because there the file's owner and mode decide.
pub fn default_key_policy() -> &'static str {
    DEFAULT
}

const DEFAULT: &str = r#"{
  "Version": "2012-10-17",
  "Id": "key-default-1",
  "Statement": [
    {
      "Sid": "Enable IAM User Permissions",
      "Effect": "Allow",
      "Principal": { "AWS": "arn:aws:iam::000000000000:root" },
      "Action": "kms:*",
      "Resource": "*"
    },
    {
      "Sid": "Allow use through a mounted volume",
      "Effect": "Allow",
      "Principal": { "AWS": "*" },
      "Action": [
        "kms:Decrypt",
        "kms:GenerateDataKey*",
        "kms:ReEncrypt*",
        "kms:DescribeKey"
      ],
      "Resource": "*",
      "Condition": { "StringEquals": { "kms:ViaService": "kmsfs" } }
    }
  ]
}"#;

impl KeyRecord {
    /// The key policy, as it was given.
    pub(in crate::keystore) fn policy_text(&self) -> &str {
        self.policy.as_deref().unwrap_or(DEFAULT)
    }
}

impl LockoutCheck {
    /// The request of somebody who wants this check.
    pub(in crate::keystore) fn asked(self) -> Asked<'static> {
        let bypassed = (self == Self::Bypassed).to_string();
        Asked::default().with(Fact::BypassPolicyLockoutSafetyCheck, bypassed)
    }
}

impl Keystore {
    /// Replaces the policy of a key.
    /// Errors: `MalformedPolicy`, `Lockout`, `LimitExceeded`, `KeyNotFound`, `AccessDenied`.
    pub fn put_key_policy(
        &self,
        key: &KeyRef,
        policy: &str,
        check: LockoutCheck,
    ) -> Result<KeyId, KeystoreError> {
        let action = Action::PutKeyPolicy;
        let id = self.edit_asking(
            action,
            key,
            Operation::Access,
            check.asked(),
            |writer, key, record| {
                set(writer, &self.caller, key, record, policy, check)?;
                Ok(key)
            },
        )?;
        log::info!("key {id} has a new policy");
        Ok(id)
    }

    /// The policy of a key, as it was given.
    /// Errors: `KeyNotFound`, `AliasNotFound`, `AccessDenied`.
    pub fn get_key_policy(&self, key: &KeyRef) -> Result<String, KeystoreError> {
        self.view(Action::GetKeyPolicy, key, |_, _, record| Ok(record.policy_text().to_owned()))
    }

    /// The names of a key's policies.
    /// Errors: `KeyNotFound`, `AliasNotFound`, `AccessDenied`.
    pub fn list_key_policies(&self, key: &KeyRef) -> Result<Vec<String>, KeystoreError> {
        self.view(Action::ListKeyPolicies, key, |_, _, _| Ok(vec![DEFAULT_POLICY_NAME.to_owned()]))
    }
}

/// Gives a key a policy, unless that is malformed or locks the caller out.
pub(in crate::keystore) fn set(
    reader: &Reader<'_>,
    caller: &Caller,
    key: KeyId,
    record: &mut KeyRecord,
    policy: &str,
    check: LockoutCheck,
) -> Result<(), KeystoreError> {
    Policy::parse(policy, Kind::Key)?;
    record.policy = Some(policy.to_owned());
    if check == LockoutCheck::Enforced {
        let again = decision::authorise(
            reader,
            caller,
            Action::PutKeyPolicy,
            Some((key, record)),
            check.asked(),
        );
        again.map_err(|error| match error {
            KeystoreError::AccessDenied(_) => AccessError::Lockout.into(),
            other => other,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_parses_and_gives_nobody_everything() {
        let policy = Policy::parse(default_key_policy(), Kind::Key).unwrap();
        assert_eq!(policy.allows_everything(), None);
    }
}
