//! Keys in memory, so that wrapping and unwrapping touch no database.
//!
//! Entries are put in and thrown out only while the store's lock is held: an entry read before a
//! change can then never be put in after the change threw the old ones out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::crypto::xaes::XaesKey;
use crate::id::{KeyId, MaterialId};
use crate::keystore::access::rules::KeyRules;
use crate::keystore::custom_store::link::Link;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::id::AliasName;
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::UnixTime;
use crate::keystore::policy::Policy;
use crate::keystore::records::access_key::AccessKeyRecord;
use crate::keystore::records::grant::Grants;
use crate::keystore::records::key::KeyRecord;
use crate::keystore::records::material::LiveMaterial;

/// A key ready for use. Its material is here only while it may be used; it wipes itself.
pub(in crate::keystore) struct LiveKey {
    pub(in crate::keystore) id: KeyId,
    pub(in crate::keystore) record: KeyRecord,
    materials: Vec<(MaterialId, LiveMaterial)>,
    /// The way to its token, for a key of a key store.
    pub(in crate::keystore) link: Option<Arc<Link>>,
}

impl LiveKey {
    pub(in crate::keystore) fn new(
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
    pub(in crate::keystore) fn state(&self, now: UnixTime) -> KeyState {
        let stored = self.record.state_at(now);
        self.link.as_ref().map_or(stored, |link| link.state_of(self.record.current, stored))
    }

    pub(in crate::keystore) fn material(&self, id: MaterialId) -> Option<&LiveMaterial> {
        let found = self.materials.binary_search_by_key(&id, |(material, _)| *material);
        found.ok().and_then(|index| self.materials.get(index)).map(|(_, key)| key)
    }

    /// A material of a symmetric key.
    /// Errors: `UnknownMaterial`.
    pub(in crate::keystore) fn symmetric(&self, id: MaterialId) -> Result<&XaesKey, KeystoreError> {
        match self.material(id) {
            Some(LiveMaterial::Symmetric(key)) => Ok(key),
            _ => Err(KeystoreError::UnknownMaterial { key: self.id, material: id }),
        }
    }
}

#[derive(Default)]
pub(in crate::keystore) struct Cache {
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
pub(in crate::keystore) struct KnownRules {
    pub(in crate::keystore) keys: HashMap<KeyId, Arc<KeyRules>>,
    pub(in crate::keystore) grants: HashMap<KeyId, Arc<Grants>>,
    pub(in crate::keystore) principals: HashMap<String, Arc<[Policy]>>,
    pub(in crate::keystore) access_keys: HashMap<String, Arc<AccessKeyRecord>>,
    pub(in crate::keystore) has_evadable_rules: Option<bool>,
    pub(in crate::keystore) served_hosts: Option<bool>,
}

impl Cache {
    pub(in crate::keystore) fn key(&self, id: KeyId) -> Option<Arc<LiveKey>> {
        self.entries.read().keys.get(&id).cloned()
    }

    pub(in crate::keystore) fn alias(&self, name: &AliasName) -> Option<KeyId> {
        self.entries.read().aliases.get(name).copied()
    }

    pub(in crate::keystore) fn put_key(&self, key: &Arc<LiveKey>) {
        let mut entries = self.entries.write();
        entries.keys.insert(key.id, Arc::clone(key));
    }

    pub(in crate::keystore) fn put_alias(&self, name: &AliasName, key: KeyId) {
        let mut entries = self.entries.write();
        entries.aliases.insert(name.clone(), key);
    }

    pub(in crate::keystore) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(in crate::keystore) fn rules<T>(&self, recall: impl FnOnce(&KnownRules) -> T) -> T {
        recall(&self.entries.read().rules)
    }

    pub(in crate::keystore) fn put_rules(&self, keep: impl FnOnce(&mut KnownRules)) {
        keep(&mut self.entries.write().rules);
    }

    pub(in crate::keystore) fn clear(&self) {
        let mut entries = self.entries.write();
        entries.keys.clear();
        entries.aliases.clear();
        entries.rules = KnownRules::default();
        self.changes.fetch_add(1, Ordering::Release);
    }
}

/// When this process last saw that it knows the newest state of the file.
pub(super) struct Looked {
    origin: Instant,
    /// Nanoseconds after `origin`; 0 before the first look.
    at: AtomicU64,
}

impl Looked {
    pub(super) fn never() -> Self {
        Self { origin: Instant::now(), at: AtomicU64::new(0) }
    }

    /// `before` is when the look began.
    pub(super) fn note(&self, before: Instant) {
        let at = nanos(before.saturating_duration_since(self.origin));
        self.at.fetch_max(at, Ordering::AcqRel);
    }

    pub(super) fn is_within(&self, age: Duration) -> bool {
        let at = self.at.load(Ordering::Acquire);
        at > 0 && nanos(self.origin.elapsed()).saturating_sub(at) < nanos(age)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
