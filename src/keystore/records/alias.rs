//! Aliases: names that can be moved from key to key.

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::id::{AliasName, text};
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record, Stored, Writer};

/// An alias as ListAliases shows it. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AliasEntry {
    /// The name, with its prefix.
    pub alias_name: AliasName,
    /// Its ARN.
    pub alias_arn: String,
    /// The key it names.
    #[serde(with = "text")]
    pub target_key_id: KeyId,
    /// When it was made.
    pub creation_date: UnixTime,
    /// When it was last moved.
    pub last_updated_date: UnixTime,
}

/// The stored form of an alias. Its row is found by a keyed hash of the name.
#[derive(Serialize, Deserialize)]
pub(in crate::keystore) struct AliasRecord {
    name: AliasName,
    created: UnixTime,
    updated: UnixTime,
}

impl Record for AliasRecord {
    const TABLE: Table = Table::Alias;
}

impl AliasRecord {
    /// The name.
    pub(in crate::keystore) fn into_name(self) -> AliasName {
        self.name
    }

    /// The key that an alias names.
    /// Errors: `AliasNotFound`.
    pub(in crate::keystore) fn target(
        reader: &Reader<'_>,
        name: &AliasName,
    ) -> Result<KeyId, KeystoreError> {
        let row = reader.rows().get(Table::Alias, &reader.root().lookup(name.as_str()))?;
        let row = row.ok_or_else(|| KeystoreError::AliasNotFound(name.clone()))?;
        let stored = reader.open::<Self>(&row)?;
        stored.owner.ok_or_else(|| KeystoreError::AliasNotFound(name.clone()))
    }

    /// Makes an alias.
    /// Errors: `AliasExists`, `LimitExceeded`.
    pub(in crate::keystore) fn create(
        writer: &mut Writer<'_>,
        name: &AliasName,
        key: KeyId,
        now: UnixTime,
    ) -> Result<(), KeystoreError> {
        let id = writer.root().lookup(name.as_str());
        if writer.rows().get(Table::Alias, &id)?.is_some() {
            return Err(KeystoreError::AliasExists(name.clone()));
        }
        Self::check_quota(writer, key)?;
        let record = Self { name: name.clone(), created: now, updated: now };
        writer.put(&id, Some(key), &record)
    }

    /// Moves an alias to another key, or notes the time.
    pub(in crate::keystore) fn target_to(
        mut self,
        writer: &mut Writer<'_>,
        key: KeyId,
        now: UnixTime,
    ) -> Result<(), KeystoreError> {
        self.updated = now;
        let id = writer.root().lookup(self.name.as_str());
        writer.put(&id, Some(key), &self)
    }

    /// Errors: `LimitExceeded` if the key has as many aliases as it may have.
    pub(in crate::keystore) fn check_quota(
        reader: &Reader<'_>,
        key: KeyId,
    ) -> Result<(), KeystoreError> {
        let quota = Quota::AliasesPerKey;
        let used = reader.rows().of_key(Table::Alias, key)?.len();
        if used < quota.limit() { Ok(()) } else { Err(KeystoreError::LimitExceeded(quota)) }
    }

    /// As it is listed; `None` if it names no key.
    pub(in crate::keystore) fn entry(stored: Stored<Self>) -> Option<AliasEntry> {
        Some(AliasEntry {
            alias_arn: stored.record.name.arn(),
            target_key_id: stored.owner?,
            creation_date: stored.record.created,
            last_updated_date: stored.record.updated,
            alias_name: stored.record.name,
        })
    }
}
