//! Keys in memory, so that wrapping and unwrapping touch no database.
//!
//! Entries are put in and thrown out only while the store's lock is held: an entry read before a
//! change can then never be put in after the change threw the old ones out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::access::access_key::AccessKeyRecord;
use super::access::grant::Grants;
use super::access::rules::KeyRules;
use super::id::AliasName;
use super::key::{KeyRecord, KeyState};
use super::key_store::Link;
use super::material::LiveMaterial;
use super::policy::Policy;
use super::time::UnixTime;
use crate::id::{KeyId, MaterialId};

/// A key ready for use. Its material is here only while it may be used; it wipes itself.
pub(super) struct LiveKey {
    pub(super) id: KeyId,
    pub(super) record: KeyRecord,
    materials: Vec<(MaterialId, LiveMaterial)>,
    /// The way to its token, for a key of a key store.
    pub(super) link: Option<Arc<Link>>,
}

impl LiveKey {
    pub(super) fn new(
        id: KeyId,
        record: KeyRecord,
        mut materials: Vec<(MaterialId, LiveMaterial)>,
        link: Option<Arc<Link>>,
    ) -> Self {
        materials.sort_unstable_by_key(|(material, _)| *material);
        Self { id, record, materials, link }
    }

    /// The state as it is shown: unavailable while a key store has no token, and without material
    /// whose end has come.
    pub(super) fn state(&self, now: UnixTime) -> KeyState {
        let stored = self.record.state_at(now);
        self.link.as_ref().map_or(stored, |link| link.state_of(self.record.current, stored))
    }

    pub(super) fn material(&self, id: MaterialId) -> Option<&LiveMaterial> {
        let found = self.materials.binary_search_by_key(&id, |(material, _)| *material);
        found.ok().and_then(|index| self.materials.get(index)).map(|(_, key)| key)
    }
}

#[derive(Default)]
pub(super) struct Cache {
    entries: RwLock<Entries>,
    /// How often it was cleared.
    changes: AtomicU64,
}

#[derive(Default)]
struct Entries {
    keys: HashMap<KeyId, Arc<LiveKey>>,
    aliases: HashMap<AliasName, KeyId>,
    rules: KnownRules,
}

/// Who may do what, as far as it was asked for.
#[derive(Default)]
pub(super) struct KnownRules {
    pub(super) keys: HashMap<KeyId, Arc<KeyRules>>,
    pub(super) grants: HashMap<KeyId, Arc<Grants>>,
    pub(super) principals: HashMap<String, Arc<[Policy]>>,
    pub(super) access_keys: HashMap<String, Arc<AccessKeyRecord>>,
    pub(super) names_groups: Option<bool>,
}

impl Cache {
    pub(super) fn key(&self, id: KeyId) -> Option<Arc<LiveKey>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys.get(&id).cloned()
    }

    pub(super) fn alias(&self, name: &AliasName) -> Option<KeyId> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).aliases.get(name).copied()
    }

    pub(super) fn put_key(&self, key: &Arc<LiveKey>) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.keys.insert(key.id, Arc::clone(key));
    }

    pub(super) fn put_alias(&self, name: &AliasName, key: KeyId) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.aliases.insert(name.clone(), key);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn rules<T>(&self, recall: impl FnOnce(&KnownRules) -> T) -> T {
        recall(&self.entries.read().unwrap_or_else(PoisonError::into_inner).rules)
    }

    pub(super) fn put_rules(&self, keep: impl FnOnce(&mut KnownRules)) {
        keep(&mut self.entries.write().unwrap_or_else(PoisonError::into_inner).rules);
    }

    pub(super) fn clear(&self) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.keys.clear();
        entries.aliases.clear();
        entries.rules = KnownRules::default();
        self.changes.fetch_add(1, Ordering::Release);
    }
}
