//! The keystore on this machine as a volume's KMS.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::service::{KeyHealth, KeyService};
use crate::crypto::secret::Secret;
use crate::envelope::{Recipient, Wrapped};
use crate::id::{KeyId, MaterialId};
use crate::keystore::{
    Caller, CiphertextBlob, EncryptionContext, KeyRef, KeyState, Keystore, KeystoreError,
};
use crate::volume::model::error::{Result, VolumeError};

impl KeyService for Keystore {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        let made = service(self).generate_data_key(&KeyRef::from(key), context);
        let made = made.map_err(|error| refused(key, error))?;
        Ok((made.plaintext, recipient(&made.ciphertext)?))
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        let opened = service(self).decrypt_data_key(&blob(wrapped)?, context);
        opened.map_err(|error| refused(wrapped.key, error))
    }

    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient> {
        let destination = KeyRef::from(to);
        let made = service(self).re_encrypt(&blob(old)?, context, &destination, context);
        recipient(&made.map_err(|error| refused(old.key, error))?)
    }

    fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.current_material(key).map_err(|error| refused(key, error))
    }

    fn find_key(&self, name: &str) -> Result<KeyId> {
        // Another process may have changed the alias a moment ago.
        let found = self.poll_changes().and_then(|_| self.resolve(&name.parse()?));
        found.map_err(|error| VolumeError::Keystore(Box::new(error)))
    }

    fn refresh(&self) -> Result<()> {
        let noticed = self.poll_changes();
        noticed.map(drop).map_err(|error| VolumeError::Keystore(Box::new(error)))
    }

    fn keystore(&self) -> Option<&Keystore> {
        Some(self)
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        if self.poll_changes().is_err() {
            return Vec::new();
        }
        let known = keys.iter().filter_map(|key| match self.key_state(*key) {
            Ok(KeyState::Enabled) => Some((*key, KeyHealth::Usable)),
            Ok(_) | Err(KeystoreError::KeyNotFound(_)) => Some((*key, KeyHealth::Unusable)),
            // A keystore that is busy for a moment says nothing about its keys.
            Err(_) => None,
        });
        known.collect()
    }
}

/// A keystore whose silence ends: keys of which nothing can be learned any more count as revoked.
///
/// Somebody who wants to revoke a key may have no other way than to take the keystore away.
pub struct LocalKeys {
    keystore: Arc<Keystore>,
    grace: Duration,
    unclear: Mutex<HashMap<KeyId, Instant>>,
}

impl std::fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalKeys").field("keystore", &self.keystore).finish_non_exhaustive()
    }
}

impl LocalKeys {
    /// The keys of a keystore, usable for `grace` after the last time that it could be read.
    pub fn new(keystore: Arc<Keystore>, grace: Duration) -> Self {
        Self { keystore, grace, unclear: Mutex::default() }
    }

    /// Notes which keys are unclear now; returns those that have been for too long.
    fn overdue(&self, unclear: &[KeyId], now: Instant) -> Vec<KeyId> {
        let mut since = self.unclear.lock();
        match (since.is_empty(), unclear.is_empty()) {
            (true, false) => log::error!(
                "the keystore cannot be read: {}; its keys count as revoked in {} s",
                self.reason(),
                self.grace.as_secs()
            ),
            (false, true) => log::warn!("the keystore can be read again"),
            _ => {}
        }
        since.retain(|key, _| unclear.contains(key));
        let old = |key: &KeyId| now.duration_since(*since.entry(*key).or_insert(now)) >= self.grace;
        unclear.iter().copied().filter(old).collect()
    }

    fn reason(&self) -> String {
        let asked = self.keystore.check_path().and_then(|()| self.keystore.poll_changes());
        asked.map_or_else(|error| error.to_string(), |_| "its rows cannot be trusted".to_owned())
    }
}

impl KeyService for LocalKeys {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        self.keystore.generate(key, context)
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        self.keystore.unwrap(wrapped, context)
    }

    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient> {
        self.keystore.rewrap(old, to, context)
    }

    fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        KeyService::current_material(&*self.keystore, key)
    }

    fn find_key(&self, name: &str) -> Result<KeyId> {
        self.keystore.find_key(name)
    }

    fn refresh(&self) -> Result<()> {
        self.keystore.refresh()
    }

    fn keystore(&self) -> Option<&Keystore> {
        Some(&self.keystore)
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        let has_path = self.keystore.check_path().is_ok();
        let mut known = if has_path { self.keystore.health(keys) } else { Vec::new() };
        let is_known = |key: &KeyId| known.iter().any(|(other, _)| other == key);
        let unclear: Vec<KeyId> = keys.iter().copied().filter(|key| !is_known(key)).collect();
        let overdue = self.overdue(&unclear, Instant::now());
        known.extend(overdue.into_iter().map(|key| (key, KeyHealth::Unreachable)));
        known
    }
}

/// A volume's own needs are bound by no policy: users are asked about when they open files.
fn service(keystore: &Keystore) -> Keystore {
    keystore.acting_for(Caller::service())
}

/// The ciphertext that the parts in a header make.
pub(in crate::volume) fn blob(wrapped: &Recipient) -> Result<CiphertextBlob> {
    match &wrapped.wrapped {
        Wrapped::Kms(sealed) => CiphertextBlob::from_parts(wrapped.key, wrapped.material, sealed)
            .map_err(|error| refused(wrapped.key, error)),
        Wrapped::Opaque(_) => Err(VolumeError::WrappedElsewhere(wrapped.key)),
    }
}

/// The parts of a ciphertext of ours, as headers store them.
pub(in crate::volume) fn recipient(blob: &CiphertextBlob) -> Result<Recipient> {
    let wrapped = blob.sealed().try_into().map_err(|_| VolumeError::Tampered("wrapped key"))?;
    let wrapped = Wrapped::Kms(wrapped);
    Ok(Recipient { key: blob.key_id(), material: blob.material_id(), wrapped })
}

fn refused(key: KeyId, error: KeystoreError) -> VolumeError {
    match error {
        KeystoreError::Disabled(_)
        | KeystoreError::InvalidState { .. }
        | KeystoreError::KeyUnavailable { .. }
        | KeystoreError::KeyNotFound(_)
        | KeystoreError::UnknownMaterial { .. } => VolumeError::KeyUnusable(key),
        KeystoreError::InvalidCiphertext => VolumeError::Tampered("wrapped key"),
        other => VolumeError::Keystore(Box::new(other)),
    }
}
