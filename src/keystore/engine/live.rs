//! Keys, rules and decisions from memory, or read into it while nobody can change the file.

use std::sync::Arc;

use crate::id::{KeyId, MaterialId};
use crate::keystore::access::decision::{self, Decision};
use crate::keystore::access::request::RequestContext;
use crate::keystore::access::rules::{KeyRules, RuleSource};
use crate::keystore::engine::cache::{KnownRules, LiveKey};
use crate::keystore::engine::keystore::{Keystore, RowSet};
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::state::KeyState;
use crate::keystore::policy::{DEFAULT, Kind, Policy};
use crate::keystore::records::alias::AliasRecord;
use crate::keystore::records::grant::{self, Grants};
use crate::keystore::records::key::{self, KeyRecord};
use crate::keystore::records::material;
use crate::keystore::records::principal::PrincipalRecord;
use crate::keystore::storage::sealed::Reader;

impl Keystore {
    /// The state of a key, from memory after the first call.
    /// Errors: `KeyNotFound`.
    pub fn key_state(&self, key: KeyId) -> Result<KeyState, KeystoreError> {
        let now = self.caller.time().into();
        let state = self.live(key).map(|live| live.state(now));
        self.note_refused_pins();
        state
    }

    /// The material that new ciphertexts of the key are made with.
    /// Errors: `KeyNotFound`; `InvalidState` while it waits for its first material.
    pub fn current_material(&self, key: KeyId) -> Result<MaterialId, KeystoreError> {
        let record = &self.live(key)?.record;
        let state = KeyState::PendingImport;
        record.current_material().ok_or(KeystoreError::InvalidState { key, state })
    }

    /// The key that is meant, which exists; from memory after the first call.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn resolve(&self, key: &KeyRef) -> Result<KeyId, KeystoreError> {
        self.live(self.key_named(key)?).map(|live| live.id)
    }

    /// The key that is meant, which may not exist if it is named by its id.
    pub(in crate::keystore) fn key_named(&self, key: &KeyRef) -> Result<KeyId, KeystoreError> {
        let alias = match key {
            KeyRef::Id(id) => return Ok(*id),
            KeyRef::Alias(alias) => alias,
        };
        if let Some(id) = self.inner.cache.alias(alias) {
            return Ok(id);
        }
        let mut opened = self.lock();
        let id = self.read_locked(&mut opened, |reader| AliasRecord::target(reader, alias))?;
        self.inner.cache.put_alias(alias, id);
        Ok(id)
    }

    /// A key ready for use, with its material if its state allows that.
    pub(in crate::keystore) fn live(&self, key: KeyId) -> Result<Arc<LiveKey>, KeystoreError> {
        let cached = self.inner.cache.key(key);
        self.inner.metrics.looked_up(&cached);
        if let Some(live) = cached {
            return Ok(live);
        }
        let mut opened = self.lock();
        let live = self.read_locked(&mut opened, |reader| {
            let record = KeyRecord::find(reader, key)?;
            let usable = key::permit(key::Operation::Crypto, key, record.state).is_ok();
            let materials =
                if usable { material::load(reader, key, record.spec)? } else { Vec::new() };
            let link = |store| self.inner.key_stores.link(reader, store);
            let link = record.key_store.map(link).transpose()?;
            Ok(Arc::new(LiveKey::new(key, record, materials, link)))
        })?;
        if opened.rows == RowSet::Bad {
            return Err(KeystoreError::RowSetTampered);
        }
        self.inner.cache.put_key(&live);
        Ok(live)
    }

    /// Returns what is in memory, or reads it and puts it there while nobody can change the file.
    pub(in crate::keystore) fn remembered<T: Clone>(
        &self,
        recall: impl FnOnce(&KnownRules) -> Option<T>,
        load: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
        keep: impl FnOnce(&mut KnownRules, T),
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

    /// As `access::authorise`, from memory.
    pub(super) fn authorise_live(
        &self,
        action: Action,
        live: &LiveKey,
        request_context: RequestContext<'_>,
    ) -> Result<(), KeystoreError> {
        decision::authorise_by(
            self,
            self.subject(),
            action,
            (live.id, &live.record),
            &request_context,
        )
    }

    /// Whether the caller, a user of a volume, may do this to a key. Does nothing else and writes
    /// nothing down.
    /// Errors: `KeyNotFound`, `InvalidGrantToken`; a refusal is no error.
    pub fn authorise(
        &self,
        action: Action,
        key: KeyId,
        context: &EncryptionContext,
    ) -> Result<Decision, KeystoreError> {
        let live = self.live(key)?;
        // Volumes name keys by their ids, and move files to other keys only.
        let mut request_context = RequestContext::symmetric(context).naming_maybe(None);
        if matches!(action, Action::ReEncryptFrom | Action::ReEncryptTo) {
            request_context = request_context.on_same_key(false);
        }
        decision::decide(self, self.subject(), action, (live.id, &live.record), &request_context)
    }

    /// True if some policy or grant tells users of this machine apart in such a way that one of them
    /// could gain by asking as another user, or without a group. Then a process must prove who it is;
    /// its ids alone are not enough, since a user has other ids, and no groups, in a user namespace.
    /// Errors: `Database`.
    pub fn has_evadable_rules(&self) -> Result<bool, KeystoreError> {
        self.remembered(
            |known| known.has_evadable_rules,
            |reader| {
                let keys = reader.all::<KeyRecord>()?;
                Ok(keys.iter().any(|key| is_evadable(key.record.policy_text()))
                    || PrincipalRecord::any_is_evadable(reader)?
                    || grant::any_is_for_local_group(reader)?)
            },
            |known, answer| known.has_evadable_rules = Some(answer),
        )
    }
}

/// One that cannot be read may say anything.
fn is_evadable(policy: &str) -> bool {
    policy != DEFAULT
        && Policy::parse(policy, Kind::Key).map_or(true, |policy| policy.is_evadable(Kind::Key))
}

impl RuleSource for Keystore {
    fn of_key(&self, key: KeyId, record: &KeyRecord) -> Result<Arc<KeyRules>, KeystoreError> {
        self.remembered(
            |known| known.keys.get(&key).cloned(),
            |reader| KeyRules::load(reader, key, record),
            |known, rules| drop(known.keys.insert(key, rules)),
        )
    }

    fn of_principal(&self, arn: &str) -> Result<Arc<[Policy]>, KeystoreError> {
        self.remembered(
            |known| known.principals.get(arn).cloned(),
            |reader| PrincipalRecord::policies_of(reader, arn),
            |known, policies| drop(known.principals.insert(arn.to_owned(), policies)),
        )
    }

    fn grants(&self, key: KeyId) -> Result<Arc<Grants>, KeystoreError> {
        self.remembered(
            |known| known.grants.get(&key).cloned(),
            |reader| Grants::load(reader, key),
            |known, grants| drop(known.grants.insert(key, grants)),
        )
    }

    fn check_tokens(&self, tokens: &[String]) -> Result<(), KeystoreError> {
        self.read(|reader| grant::check_tokens(reader, tokens))
    }
}
