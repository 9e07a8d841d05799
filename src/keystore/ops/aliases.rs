//! CreateAlias, UpdateAlias, DeleteAlias, ListAliases.

use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::access;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{AliasName, KeyRef};
use crate::keystore::records::alias::{AliasEntry, AliasRecord};
use crate::keystore::records::key::{KeyRecord, Operation};
use crate::keystore::storage::rows::Table;

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
            access::authorise_alias(writer, self.subject(), Action::CreateAlias, name)?;
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
            access::authorise_alias(writer, self.subject(), Action::UpdateAlias, name)?;
            let id = writer.root().lookup(name.as_str());
            let record = writer.get::<AliasRecord>(&id)?;
            let record = record.ok_or_else(|| KeystoreError::AliasNotFound(name.clone()))?;
            let old = AliasRecord::target(writer, name)?;
            if old != key {
                // AWS asks both keys: the one that loses the name too.
                let from = KeyRecord::find(writer, old)?;
                let (action, about) = (Action::UpdateAlias, Some((old, &from)));
                access::authorise(
                    writer,
                    self.subject(),
                    action,
                    about,
                    RequestContext::default(),
                )?;
                AliasRecord::check_quota(writer, key)?;
                check_kind(&from, to)?;
            }
            record.target_to(writer, key, now.into())
        })
    }

    /// Removes a name. The key is not touched, whatever its state.
    /// Errors: `AliasNotFound`.
    pub fn delete_alias(&self, name: &AliasName) -> Result<(), KeystoreError> {
        self.operate(Action::DeleteAlias, None, |details| {
            self.write(|writer| {
                let key = AliasRecord::target(writer, name)?;
                details.key = Some(key);
                let record = KeyRecord::find(writer, key)?;
                let about = Some((key, &record));
                let action = Action::DeleteAlias;
                access::authorise_alias(writer, self.subject(), action, name)?;
                access::authorise(
                    writer,
                    self.subject(),
                    action,
                    about,
                    RequestContext::default(),
                )?;
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
        let mut entries: Vec<_> = stored.into_iter().filter_map(AliasRecord::entry).collect();
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
