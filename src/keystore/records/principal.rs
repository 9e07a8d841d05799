//! Policies of users and groups: what the account itself says about who may do what.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::keystore::error::KeystoreError;
use crate::keystore::policy::{Kind, Named, Policy};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record, Writer};

/// A user, group or root of the account that has policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PrincipalEntry {
    /// Its ARN; `unknown` since its row was lost in a repair.
    pub arn: String,
    /// The names of its policies.
    pub policy_names: Vec<String>,
}

/// The stored form: the policies of one principal by name. Found by a keyed hash of the ARN.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::keystore) struct PrincipalRecord {
    /// Empty since a repair: nobody knows whose hash the row is found by.
    arn: String,
    policies: BTreeMap<String, String>,
}

impl Record for PrincipalRecord {
    const TABLE: Table = Table::Principal;
}

impl PrincipalRecord {
    /// The parsed policies of the principal with this ARN.
    pub(in crate::keystore) fn policies_of(
        reader: &Reader<'_>,
        arn: &str,
    ) -> Result<Arc<[Policy]>, KeystoreError> {
        let Some(record) = Self::find(reader, arn)? else { return Ok(Arc::new([])) };
        let parse = |text: &String| Policy::parse(text, Kind::Identity);
        Ok(record.policies.values().map(parse).collect::<Result<_, _>>()?)
    }

    /// True if any policy of a principal binds a group of this machine, or takes something from one of
    /// its users, or from the root, which the server's own user stands for. One that cannot be read may
    /// do so.
    pub(in crate::keystore) fn any_is_evadable(reader: &Reader<'_>) -> Result<bool, KeystoreError> {
        Ok(reader.all::<Self>()?.iter().any(|stored| stored.record.is_evadable()))
    }

    fn is_evadable(&self) -> bool {
        let evadable = |text: &String| {
            Policy::parse(text, Kind::Identity)
                .map_or(true, |policy| policy.is_evadable(Kind::Identity))
        };
        match Named::parse(&self.arn) {
            Some(named) if named.is_local_group() => true,
            // An access key proves who has it.
            Some(named @ Named::One(_)) if !named.is_local_user() => false,
            Some(_) => self.policies.values().any(evadable),
            // Nobody knows whose they are, since a repair.
            None => true,
        }
    }

    pub(in crate::keystore) fn find(
        reader: &Reader<'_>,
        arn: &str,
    ) -> Result<Option<Self>, KeystoreError> {
        let found = reader.get::<Self>(&reader.root().lookup(arn))?;
        Ok(found.map(|record| Self { arn: arn.to_owned(), ..record }))
    }

    /// In the place of one that was damaged, in which a Deny may have stood: its principal may do nothing
    /// until somebody takes this policy away.
    pub(in crate::keystore) fn lost() -> Self {
        let policies = BTreeMap::from([(LOST.to_owned(), DENY_ALL.to_owned())]);
        Self { arn: String::new(), policies }
    }

    /// Stores it, or removes it when nothing is left in it.
    pub(in crate::keystore) fn save(&self, writer: &mut Writer<'_>) -> Result<(), KeystoreError> {
        let id = writer.root().lookup(&self.arn);
        if self.policies.is_empty() {
            writer.delete(Table::Principal, &id)
        } else {
            writer.put(&id, None, self)
        }
    }

    pub(in crate::keystore) fn new(arn: String) -> Self {
        Self { arn, policies: BTreeMap::new() }
    }

    /// Its policies as they were given, by name.
    pub(in crate::keystore) fn policies_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.policies
    }

    /// As it is listed.
    pub(in crate::keystore) fn into_entry(self) -> PrincipalEntry {
        let arn = if self.arn.is_empty() { "unknown".to_owned() } else { self.arn };
        PrincipalEntry { arn, policy_names: self.policies.into_keys().collect() }
    }
}

/// The name of the policy that stands for those that were lost.
const LOST: &str = "lost-in-a-repair";
const DENY_ALL: &str = r#"{"Statement":{"Effect":"Deny","Action":"kms:*","Resource":"*"}}"#;
