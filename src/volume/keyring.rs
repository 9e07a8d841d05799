//! The seam to the KMS: the only file of this layer that asks the keystore for keys.
//!
//! Every wrap is bound to the volume and to the file or directory by its encryption context, never
//! to a path: a rename asks nobody.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::error::{Result, VolumeError};
use crate::crypto::random;
use crate::crypto::secret::Secret;
use crate::envelope::{DirDescriptor, DirKeys, Recipient, VolumeDescriptor, VolumeKeys, Wrapped};
use crate::id::{DirId, FileId, KeyId, MaterialId, VolumeId};
use crate::keystore::{
    Caller, CiphertextBlob, EncryptionContext, KeyRef, KeyState, Keystore, KeystoreError,
};

/// What a key is wrapped for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    File(FileId),
    Directory(DirId),
    Volume,
}

/// Makes, unwraps and re-wraps the keys of one volume, and keeps none of them.
pub struct Keyring {
    keystore: Arc<Keystore>,
    volume: VolumeId,
    used: Mutex<HashSet<KeyId>>,
    revoked: RwLock<HashSet<KeyId>>,
    any_revoked: AtomicBool,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").field("volume", &self.volume).finish_non_exhaustive()
    }
}

impl Keyring {
    pub(super) fn new(keystore: Arc<Keystore>, volume: VolumeId) -> Self {
        Self {
            keystore: Arc::new(keystore.acting_for(Caller::service())),
            volume,
            used: Mutex::default(),
            revoked: RwLock::default(),
            any_revoked: AtomicBool::new(false),
        }
    }

    /// The keystore behind it.
    pub fn keystore(&self) -> &Arc<Keystore> {
        &self.keystore
    }

    /// A fresh 32-byte key and its wrap under `key`.
    ///
    /// # Errors
    /// `KeyUnusable` when the KMS key may not be used now.
    pub(super) fn generate(&self, key: KeyId, purpose: Purpose) -> Result<(Secret<32>, Recipient)> {
        self.check(key)?;
        let context = self.context(purpose);
        let made = self.keystore.generate_data_key(&KeyRef::from(key), &context);
        let made = made.map_err(|error| refused(key, error))?;
        Ok((made.plaintext, recipient(&made.ciphertext)?))
    }

    /// Unwraps a key.
    ///
    /// # Errors
    /// `KeyUnusable`; `Tampered` for a wrap that was made for something else, or changed.
    pub(super) fn unwrap(&self, wrapped: &Recipient, purpose: Purpose) -> Result<Secret<32>> {
        self.check(wrapped.key)?;
        let opened = self.keystore.decrypt_data_key(&blob(wrapped)?, &self.context(purpose));
        opened.map_err(|error| refused(wrapped.key, error))
    }

    /// Wraps the same key again: under another KMS key, or the same one's current material.
    ///
    /// # Errors
    /// As [`Self::unwrap`] and [`Self::generate`].
    pub(super) fn rewrap(&self, old: &Recipient, to: KeyId, purpose: Purpose) -> Result<Recipient> {
        self.check(old.key)?;
        self.check(to)?;
        let context = self.context(purpose);
        let destination = KeyRef::from(to);
        let made = self.keystore.re_encrypt(&blob(old)?, &context, &destination, &context);
        recipient(&made.map_err(|error| refused(old.key, error))?)
    }

    /// The material that new wraps under `key` use.
    pub(super) fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.keystore.current_material(key).map_err(|error| refused(key, error))
    }

    /// A descriptor and keys for a new directory inside `above`.
    pub(super) fn new_dir(&self, above: &DirDescriptor) -> Result<(DirDescriptor, DirKeys)> {
        let mut made = self.dir_under(above.policy)?;
        made.0.inherited = true;
        made.0.cross = above.cross;
        made.0.previous.clone_from(&above.previous);
        Ok(made)
    }

    /// A descriptor and keys for a directory with a policy of its own.
    pub(super) fn dir_under(&self, policy: KeyId) -> Result<(DirDescriptor, DirKeys)> {
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
        };
        Ok((descriptor, DirKeys::new(dir, &key)))
    }

    /// The keys of a directory whose descriptor nobody has vouched for yet.
    pub(super) fn open_dir(&self, claims: &DirDescriptor) -> Result<DirKeys> {
        let key = self.unwrap(&claims.recipient, Purpose::Directory(claims.dir))?;
        Ok(DirKeys::new(claims.dir, &key))
    }

    /// The keys of a volume whose descriptor nobody has vouched for yet.
    pub(super) fn open_volume(&self, claims: &VolumeDescriptor) -> Result<VolumeKeys> {
        let key = self.unwrap(&claims.recipient, Purpose::Volume)?;
        Ok(VolumeKeys::new(claims.volume, &key))
    }

    /// Refuses a key that was revoked while the volume is mounted (R12).
    pub(super) fn check(&self, key: KeyId) -> Result<()> {
        if self.is_revoked(key) {
            return Err(VolumeError::KeyUnusable(key));
        }
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        Ok(())
    }

    pub(super) fn is_revoked(&self, key: KeyId) -> bool {
        self.any_revoked.load(Ordering::Acquire) && self.revoked_keys().contains(&key)
    }

    fn revoked_keys(&self) -> std::sync::RwLockReadGuard<'_, HashSet<KeyId>> {
        self.revoked.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the keystore what became of the keys that were used; returns what changed.
    pub(super) fn poll(&self) -> (Vec<KeyId>, Vec<KeyId>) {
        if let Err(error) = self.keystore.poll_changes() {
            log::error!("the keystore cannot be read: {error}; its keys stay as they were");
            return (Vec::new(), Vec::new());
        }
        let used: Vec<KeyId> =
            self.used.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        let (mut lost, mut back) = (Vec::new(), Vec::new());
        for key in used {
            let usable = match self.keystore.key_state(key) {
                Ok(state) => state == KeyState::Enabled,
                Err(KeystoreError::KeyNotFound(_)) => false,
                // A keystore that is busy for a moment says nothing about its keys.
                Err(_) => continue,
            };
            match (usable, self.is_revoked(key)) {
                (false, false) => lost.push(key),
                (true, true) => back.push(key),
                _ => {}
            }
        }
        (lost, back)
    }

    pub(super) fn set_revoked(&self, key: KeyId, revoked: bool) {
        let mut keys = self.revoked.write().unwrap_or_else(PoisonError::into_inner);
        if revoked {
            keys.insert(key);
        } else {
            keys.remove(&key);
        }
        self.any_revoked.store(!keys.is_empty(), Ordering::Release);
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

fn blob(wrapped: &Recipient) -> Result<CiphertextBlob> {
    match &wrapped.wrapped {
        Wrapped::Kms(sealed) => CiphertextBlob::from_parts(wrapped.key, wrapped.material, sealed)
            .map_err(|error| refused(wrapped.key, error)),
        // The keystore that could read it is elsewhere.
        Wrapped::Opaque(_) => Err(VolumeError::KeyUnusable(wrapped.key)),
    }
}

fn recipient(blob: &CiphertextBlob) -> Result<Recipient> {
    let wrapped = blob.sealed().try_into().map_err(|_| VolumeError::Tampered("wrapped key"))?;
    let wrapped = Wrapped::Kms(wrapped);
    Ok(Recipient { key: blob.key_id(), material: blob.material_id(), wrapped })
}

fn refused(key: KeyId, error: KeystoreError) -> VolumeError {
    match error {
        KeystoreError::Disabled(_)
        | KeystoreError::InvalidState { .. }
        | KeystoreError::KeyNotFound(_)
        | KeystoreError::UnknownMaterial { .. } => VolumeError::KeyUnusable(key),
        KeystoreError::InvalidCiphertext => VolumeError::Tampered("wrapped key"),
        other => VolumeError::Keystore(Box::new(other)),
    }
}
