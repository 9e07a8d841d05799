//! The rules that decisions are made by: key policies, the account's policies, grants. Parsed once
//! and kept in memory until something in the keystore changes.

use std::sync::Arc;

use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::caller::Caller;
use crate::keystore::policy::{Kind, Policy};
use crate::keystore::records::alias::AliasRecord;
use crate::keystore::records::grant::{self, Grants};
use crate::keystore::records::key::KeyRecord;
use crate::keystore::records::principal::PrincipalRecord;
use crate::keystore::storage::sealed::Reader;

/// Who asks, and where the account's policies are, if not in the keystore that is asked.
#[derive(Clone, Copy)]
pub(in crate::keystore) struct Subject<'a> {
    pub(in crate::keystore) caller: &'a Caller,
    pub(in crate::keystore) account: Option<&'a dyn RuleSource>,
}

/// The rules of one key.
#[derive(Debug)]
pub(in crate::keystore) struct KeyRules {
    pub(in crate::keystore) policy: Policy,
    pub(in crate::keystore) aliases: Vec<String>,
    pub(in crate::keystore) multi_region: bool,
}

/// Where the rules for a decision are found: in a transaction, or in the memory of an open keystore.
pub(in crate::keystore) trait RuleSource {
    fn of_key(&self, key: KeyId, record: &KeyRecord) -> Result<Arc<KeyRules>, KeystoreError>;

    /// The policies that this keystore has for the user or group with this ARN.
    fn of_principal(&self, arn: &str) -> Result<Arc<[Policy]>, KeystoreError>;

    fn grants(&self, key: KeyId) -> Result<Arc<Grants>, KeystoreError>;

    /// Are these tokens of grants that exist?
    /// Errors: `InvalidGrantToken`.
    fn check_tokens(&self, tokens: &[String]) -> Result<(), KeystoreError>;
}

impl RuleSource for Reader<'_> {
    fn of_key(&self, key: KeyId, record: &KeyRecord) -> Result<Arc<KeyRules>, KeystoreError> {
        KeyRules::load(self, key, record)
    }

    fn of_principal(&self, arn: &str) -> Result<Arc<[Policy]>, KeystoreError> {
        PrincipalRecord::policies_of(self, arn)
    }

    fn grants(&self, key: KeyId) -> Result<Arc<Grants>, KeystoreError> {
        Grants::load(self, key)
    }

    fn check_tokens(&self, tokens: &[String]) -> Result<(), KeystoreError> {
        grant::check_tokens(self, tokens)
    }
}

impl KeyRules {
    pub(in crate::keystore) fn load(
        reader: &Reader<'_>,
        key: KeyId,
        record: &KeyRecord,
    ) -> Result<Arc<Self>, KeystoreError> {
        let aliases = reader.of_key::<AliasRecord>(key)?;
        Ok(Arc::new(Self {
            policy: Policy::parse(record.policy_text(), Kind::Key)?,
            aliases: aliases.into_iter().map(|alias| alias.record.into_name().into()).collect(),
            multi_region: key.is_multi_region(),
        }))
    }
}
