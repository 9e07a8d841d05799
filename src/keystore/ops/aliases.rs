//! Aliases: names that can be moved from key to key.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::keystore::access::request::Asked;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{AliasName, KeyRef, text};
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::key::{KeyRecord, Operation};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{self, Reader, Record, Writer};
use crate::keystore::{Keystore, access};

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
        check_quota(writer, key)?;
        let record = Self { name: name.clone(), created: now, updated: now };
        writer.put(&id, Some(key), &record)
    }
}

impl Keystore {
    /// Gives a key a name.
    /// Errors: `AliasExists`, `KeyNotFound`, `InvalidState`, `LimitExceeded`.
    pub fn create_alias(
        &self,
        name: &AliasName,
        key: KeyId,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.edit(Action::CreateAlias, &key.into(), Operation::Metadata, |writer, key, _| {
            access::authorise_alias(writer, &self.caller, Action::CreateAlias, name)?;
            AliasRecord::create(writer, name, key, now.into())
        })
    }

    /// Moves a name to another key of the same kind and use.
    /// Errors: `AliasNotFound`, `KeyNotFound`, `InvalidState`, `LimitExceeded`, `Validation`.
    pub fn update_alias(
        &self,
        name: &AliasName,
        key: KeyId,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.edit(Action::UpdateAlias, &key.into(), Operation::Metadata, |writer, key, to| {
            access::authorise_alias(writer, &self.caller, Action::UpdateAlias, name)?;
            let id = writer.root().lookup(name.as_str());
            let record = writer.get::<AliasRecord>(&id)?;
            let mut record = record.ok_or_else(|| KeystoreError::AliasNotFound(name.clone()))?;
            let old = AliasRecord::target(writer, name)?;
            if old != key {
                // AWS asks both keys: the one that loses the name too.
                let from = KeyRecord::find(writer, old)?;
                let (action, about) = (Action::UpdateAlias, Some((old, &from)));
                access::authorise(writer, &self.caller, action, about, Asked::default())?;
                check_quota(writer, key)?;
                check_kind(&from, to)?;
            }
            record.updated = now.into();
            writer.put(&id, Some(key), &record)
        })
    }

    /// Removes a name. The key is not touched, whatever its state.
    /// Errors: `AliasNotFound`.
    pub fn delete_alias(&self, name: &AliasName) -> Result<(), KeystoreError> {
        self.operate(Action::DeleteAlias, None, |touched| {
            self.write(|writer| {
                let key = AliasRecord::target(writer, name)?;
                touched.key = Some(key);
                let record = KeyRecord::find(writer, key)?;
                let about = Some((key, &record));
                let action = Action::DeleteAlias;
                access::authorise_alias(writer, &self.caller, action, name)?;
                access::authorise(writer, &self.caller, action, about, Asked::default())?;
                writer.delete(Table::Alias, &writer.root().lookup(name.as_str()))
            })
        })
    }

    /// All aliases by name, or those of one key.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn list_aliases(&self, key: Option<&KeyRef>) -> Result<Vec<AliasEntry>, KeystoreError> {
        let key = key.map(|key| self.resolve(key)).transpose()?;
        let stored = self.view_all(Action::ListAliases, |reader| match key {
            Some(key) => reader.of_key::<AliasRecord>(key),
            None => reader.all::<AliasRecord>(),
        })?;
        let entry = |alias: sealed::Stored<AliasRecord>| {
            Some(AliasEntry {
                alias_arn: alias.record.name.arn(),
                target_key_id: alias.owner?,
                creation_date: alias.record.created,
                last_updated_date: alias.record.updated,
                alias_name: alias.record.name,
            })
        };
        let mut entries: Vec<_> = stored.into_iter().filter_map(entry).collect();
        entries.sort_by(|a, b| a.alias_name.cmp(&b.alias_name));
        Ok(entries)
    }
}

/// Whoever uses a name must be able to go on with the new key: both symmetric, or both asymmetric,
/// or both for MACs, and for the same use.
/// Errors: `Validation`.
fn check_kind(from: &KeyRecord, to: &KeyRecord) -> Result<(), KeystoreError> {
    if from.usage == to.usage && from.spec.is_asymmetric() == to.spec.is_asymmetric() {
        return Ok(());
    }
    Err(KeystoreError::Validation(format!(
        "Alias cannot be changed from a key of usage {} and spec {} to one of usage {} and spec {}.",
        from.usage, from.spec, to.usage, to.spec
    )))
}

fn check_quota(reader: &Reader<'_>, key: KeyId) -> Result<(), KeystoreError> {
    let quota = Quota::AliasesPerKey;
    let used = reader.rows().of_key(Table::Alias, key)?.len();
    if used < quota.limit() { Ok(()) } else { Err(KeystoreError::LimitExceeded(quota)) }
}
