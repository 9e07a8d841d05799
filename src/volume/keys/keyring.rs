//! The keys of one volume: the only file of this layer that asks a KMS for them.
//!
//! Every wrap is bound to the volume and to the file or directory by its encryption context, never
//! to a path: a rename under one key asks nobody.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::service::{KeyHealth, KeyService};
use crate::crypto::random;
use crate::crypto::secret::Secret;
use crate::envelope::{
    DirDescriptor, DirKeys, DirPlace, Places, Recipient, VolumeDescriptor, VolumeKeys,
};
use crate::id::{DirId, FileId, KeyId, MaterialId, VolumeId};
use crate::keystore::EncryptionContext;
use crate::volume::model::dir_policy::inheriting;
use crate::volume::model::error::{Result, VolumeError};

/// What a key is wrapped for.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) enum Purpose {
    File(FileId),
    Directory(DirId),
    Volume,
}

/// The time between two searches for what is under a key. What was wrapped or decided in an earlier
/// one, and only the memory has of it, was not found: it counts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::volume) struct Epoch(u64);

impl Epoch {
    /// Before all others: of what was decided nobody knows when.
    pub(in crate::volume) const UNKNOWN: Self = Self(0);
}

/// Makes, unwraps and re-wraps the keys of one volume, and keeps none of them.
pub struct Keyring {
    service: Arc<dyn KeyService>,
    volume: VolumeId,
    used: Mutex<HashSet<KeyId>>,
    revoked: RwLock<HashSet<KeyId>>,
    any_revoked: AtomicBool,
    /// Counts, from 1, what may change an answer about permissions.
    changes: AtomicU64,
    /// Some file has got its first contents since the last review of its handles.
    first_contents: AtomicBool,
    /// The number of the present [`Epoch`], from 1.
    epoch: AtomicU64,
}

/// What became of keys since the last look.
#[derive(Debug, Default)]
pub(in crate::volume) struct Changes {
    pub(in crate::volume) lost: Vec<(KeyId, KeyHealth)>,
    pub(in crate::volume) back: Vec<KeyId>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl Keyring {
    pub(in crate::volume) fn new(service: Arc<dyn KeyService>, volume: VolumeId) -> Self {
        Self {
            service,
            volume,
            used: Mutex::default(),
            revoked: RwLock::default(),
            any_revoked: AtomicBool::new(false),
            changes: AtomicU64::new(1),
            first_contents: AtomicBool::new(false),
            epoch: AtomicU64::new(1),
        }
    }

    /// The KMS behind it.
    pub fn service(&self) -> &Arc<dyn KeyService> {
        &self.service
    }

    /// A fresh 32-byte key and its wrap under `key`.
    ///
    /// # Errors
    /// `KeyUnusable` when the KMS key may not be used now; `KmsUnreachable`.
    pub(in crate::volume) fn generate(
        &self,
        key: KeyId,
        purpose: Purpose,
    ) -> Result<(Secret<32>, Recipient)> {
        self.check(key)?;
        self.service.generate(key, &self.context(purpose))
    }

    /// Unwraps a key.
    ///
    /// # Errors
    /// As [`Self::generate`]; `Tampered` for a wrap that was made for something else, or changed.
    pub(in crate::volume) fn unwrap(
        &self,
        wrapped: &Recipient,
        purpose: Purpose,
    ) -> Result<Secret<32>> {
        self.check(wrapped.key)?;
        self.service.unwrap(wrapped, &self.context(purpose))
    }

    /// Wraps the same key again: under another KMS key, or the same one's current material.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    pub(in crate::volume) fn rewrap(
        &self,
        old: &Recipient,
        to: KeyId,
        purpose: Purpose,
    ) -> Result<Recipient> {
        self.check(old.key)?;
        self.check(to)?;
        self.service.rewrap(old, to, &self.context(purpose))
    }

    /// The material that new wraps under `key` use.
    pub(in crate::volume) fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.service.current_material(key)
    }

    /// A descriptor and keys for a new directory inside `above`, which gets the backing name
    /// `entry`.
    pub(in crate::volume) fn new_dir(
        &self,
        above: &DirDescriptor,
        entry: &[u8],
    ) -> Result<(DirDescriptor, DirKeys)> {
        let (made, keys) = self.dir_under(above.policy, DirPlace::below(above.dir, entry))?;
        let previous = above.previous.clone();
        let made = DirDescriptor { inherited: true, cross: above.cross, previous, ..made };
        Ok((inheriting(made, Vec::new()), keys))
    }

    /// A descriptor and keys for the root of a new volume.
    pub(in crate::volume) fn new_root(&self, policy: KeyId) -> Result<(DirDescriptor, DirKeys)> {
        self.dir_under(policy, DirPlace::root(self.volume))
    }

    fn dir_under(&self, policy: KeyId, place: DirPlace) -> Result<(DirDescriptor, DirKeys)> {
        let dir = DirId::from_bytes(random::id16()?);
        let (key, recipient) = self.generate(policy, Purpose::Directory(dir))?;
        let descriptor = DirDescriptor {
            dir,
            sequence: 1,
            policy,
            inherited: false,
            cross: crate::envelope::CrossMode::default(),
            previous: Vec::new(),
            recipient,
            places: Some(Places::at(place)),
            policy_sequence: 0,
        };
        Ok((descriptor, DirKeys::new(dir, &key)))
    }

    /// The keys of a directory whose descriptor nobody has vouched for yet.
    pub(in crate::volume) fn open_dir(&self, claims: &DirDescriptor) -> Result<DirKeys> {
        let key = self.unwrap(&claims.recipient, Purpose::Directory(claims.dir))?;
        Ok(DirKeys::new(claims.dir, &key))
    }

    /// The keys of a volume whose descriptor nobody has vouched for yet.
    pub(in crate::volume) fn open_volume(&self, claims: &VolumeDescriptor) -> Result<VolumeKeys> {
        let key = self.unwrap(&claims.recipient, Purpose::Volume)?;
        Ok(VolumeKeys::new(claims.volume, &key))
    }

    /// Refuses a key that was revoked while the volume is mounted (R12).
    pub(in crate::volume) fn check(&self, key: KeyId) -> Result<()> {
        if self.is_revoked(key) {
            return Err(VolumeError::KeyUnusable(key));
        }
        self.used.lock().insert(key);
        Ok(())
    }

    pub(in crate::volume) fn is_revoked(&self, key: KeyId) -> bool {
        self.any_revoked.load(Ordering::Acquire) && self.revoked_keys().contains(&key)
    }

    fn revoked_keys(&self) -> RwLockReadGuard<'_, HashSet<KeyId>> {
        self.revoked.read()
    }

    /// Asks the KMS what became of the keys that were used; returns what changed.
    pub(in crate::volume) fn poll(&self) -> Changes {
        let used: Vec<KeyId> = self.used.lock().iter().copied().collect();
        let mut changes = Changes::default();
        for (key, health) in self.service.health(&used) {
            match (health, self.is_revoked(key)) {
                (KeyHealth::Usable, true) => changes.back.push(key),
                (KeyHealth::Unusable | KeyHealth::Unreachable, false) => {
                    changes.lost.push((key, health));
                }
                _ => {}
            }
        }
        changes
    }

    pub(in crate::volume) fn set_revoked(&self, key: KeyId, revoked: bool) {
        let mut keys = self.revoked.write();
        if revoked {
            keys.insert(key);
        } else {
            keys.remove(&key);
        }
        self.any_revoked.store(!keys.is_empty(), Ordering::Release);
    }

    /// A count that goes up whenever an answer about permissions may have changed.
    pub(in crate::volume) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(in crate::volume) fn permissions_changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// A file that was empty has a key. No answer changes by that, so none is asked for again: many
    /// small files would make that dear.
    pub(in crate::volume) fn note_first_contents(&self) {
        self.first_contents.store(true, Ordering::Release);
    }

    /// True if a file has got a key since this was asked last.
    pub(in crate::volume) fn take_first_contents(&self) -> bool {
        self.first_contents.swap(false, Ordering::AcqRel)
    }

    /// The encryption context of a file's key, as far as it is known before the file is made.
    pub(in crate::volume) fn file_context(&self, file: Option<FileId>) -> EncryptionContext {
        self.context(file.map_or(Purpose::Volume, Purpose::File))
    }

    /// The present one. Ask before something is wrapped or decided, and again, under the lock that a
    /// search takes, before it is used.
    pub(in crate::volume) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// Ends the present epoch: the first step of a search, which then waits for whoever uses something
    /// from before.
    pub(in crate::volume) fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    fn context(&self, purpose: Purpose) -> EncryptionContext {
        let context = EncryptionContext::new()
            .with("kmsfs:format", "1")
            .with("kmsfs:volume", self.volume.to_string());
        match purpose {
            Purpose::File(file) => context.with("kmsfs:file", file.to_string()),
            Purpose::Directory(dir) => context.with("kmsfs:directory", dir.to_string()),
            Purpose::Volume => context,
        }
    }
}
