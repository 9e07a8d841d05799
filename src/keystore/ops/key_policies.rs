//! PutKeyPolicy, GetKeyPolicy, ListKeyPolicies.

use crate::id::KeyId;
use crate::keystore::access::lockout::{self, LockoutCheck};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::KeyRef;
use crate::keystore::policy::DEFAULT_POLICY_NAME;
use crate::keystore::records::key::Operation;

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
        let id = self.edit_with(
            action,
            key,
            Operation::Access,
            check.request_context(),
            |writer, key, record| {
                lockout::set(writer, self.subject(), key, record, policy, check)?;
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
