//! The rules that decisions are made by: key policies, the account's policies, grants. Parsed once
//! and kept in memory until something in the keystore changes.

use std::sync::Arc;

use crate::id::KeyId;
use crate::keystore::engine::cache;
use crate::keystore::error::KeystoreError;
use crate::keystore::ops::aliases::AliasRecord;
use crate::keystore::ops::principals::PrincipalRecord;
use crate::keystore::policy::{Kind, Policy};
use crate::keystore::records::grant::{self, Grants};
use crate::keystore::records::key::KeyRecord;
use crate::keystore::storage::sealed::Reader;
use crate::keystore::{Keystore, RowSet};

/// What is decided about a key by itself.
#[derive(Debug)]
pub(in crate::keystore) struct KeyRules {
    pub(in crate::keystore) policy: Policy,
    pub(in crate::keystore) aliases: Vec<String>,
    pub(in crate::keystore) multi_region: bool,
}

/// Where rules are read.
#[derive(Clone, Copy)]
pub(in crate::keystore) enum Rules<'a> {
    /// In a transaction.
    Stored(&'a Reader<'a>),
    /// In memory, and only what is missing there in a transaction.
    Live(&'a Keystore),
}

impl Rules<'_> {
    pub(in crate::keystore) fn of_key(
        self,
        key: KeyId,
        record: &KeyRecord,
    ) -> Result<Arc<KeyRules>, KeystoreError> {
        match self {
            Self::Stored(reader) => KeyRules::load(reader, key, record),
            Self::Live(keystore) => keystore.remembered(
                |known| known.keys.get(&key).cloned(),
                |reader| KeyRules::load(reader, key, record),
                |known, rules| drop(known.keys.insert(key, rules)),
            ),
        }
    }

    /// The account's policies for the user or group with this ARN.
    pub(in crate::keystore) fn of_principal(
        self,
        arn: &str,
    ) -> Result<Arc<[Policy]>, KeystoreError> {
        match self {
            Self::Stored(reader) => PrincipalRecord::policies_of(reader, arn),
            Self::Live(keystore) => keystore.remembered(
                |known| known.principals.get(arn).cloned(),
                |reader| PrincipalRecord::policies_of(reader, arn),
                |known, policies| drop(known.principals.insert(arn.to_owned(), policies)),
            ),
        }
    }

    pub(in crate::keystore) fn grants(self, key: KeyId) -> Result<Arc<Grants>, KeystoreError> {
        match self {
            Self::Stored(reader) => Grants::load(reader, key),
            Self::Live(keystore) => keystore.remembered(
                |known| known.grants.get(&key).cloned(),
                |reader| Grants::load(reader, key),
                |known, grants| drop(known.grants.insert(key, grants)),
            ),
        }
    }

    /// Are these tokens of grants that exist?
    /// Errors: `InvalidGrantToken`.
    pub(in crate::keystore) fn check_tokens(self, tokens: &[String]) -> Result<(), KeystoreError> {
        match self {
            Self::Stored(reader) => grant::check_tokens(reader, tokens),
            Self::Live(keystore) => keystore.read(|reader| grant::check_tokens(reader, tokens)),
        }
    }
}

impl KeyRules {
    fn load(
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

impl Keystore {
    /// Does a policy or a grant name a group of this machine?
    /// Errors: `Database`.
    pub fn names_groups(&self) -> Result<bool, KeystoreError> {
        self.remembered(
            |known| known.names_groups,
            |reader| {
                // JSON may write any character as an escape: then nobody looks closer.
                let mention = |text: &str| text.contains("group/unix/") || text.contains('\\');
                let keys = reader.all::<KeyRecord>()?;
                Ok(keys.iter().any(|key| mention(key.record.policy_text()))
                    || PrincipalRecord::any_is(reader, mention)?
                    || grant::any_is_for(reader, mention)?)
            },
            |known, answer| known.names_groups = Some(answer),
        )
    }

    /// What is in memory, or else is read and put there while nobody can change the file.
    pub(in crate::keystore) fn remembered<T: Clone>(
        &self,
        recall: impl FnOnce(&cache::KnownRules) -> Option<T>,
        load: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
        keep: impl FnOnce(&mut cache::KnownRules, T),
    ) -> Result<T, KeystoreError> {
        if let Some(known) = self.inner.cache.rules(recall) {
            return Ok(known);
        }
        let mut opened = self.lock();
        let loaded = self.read_locked(&mut opened, load)?;
        if opened.rows == RowSet::Bad {
            return Err(KeystoreError::RowSetTampered);
        }
        self.inner.cache.put_rules(|known| keep(known, loaded.clone()));
        Ok(loaded)
    }
}
