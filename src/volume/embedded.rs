//! The keystore on this machine as a volume's KMS.

use super::error::{Result, VolumeError};
use super::key_service::{KeyHealth, KeyService};
use crate::crypto::secret::Secret;
use crate::envelope::{Recipient, Wrapped};
use crate::id::{KeyId, MaterialId};
use crate::keystore::{
    Caller, CiphertextBlob, EncryptionContext, KeyRef, KeyState, Keystore, KeystoreError,
};

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
        if let Err(error) = self.poll_changes() {
            log::error!("the keystore cannot be read: {error}; its keys stay as they were");
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

/// A volume's own needs are bound by no policy: users are asked about when they open files.
fn service(keystore: &Keystore) -> Keystore {
    keystore.acting_for(Caller::service())
}

/// The ciphertext that the parts in a header make.
pub(super) fn blob(wrapped: &Recipient) -> Result<CiphertextBlob> {
    match &wrapped.wrapped {
        Wrapped::Kms(sealed) => CiphertextBlob::from_parts(wrapped.key, wrapped.material, sealed)
            .map_err(|error| refused(wrapped.key, error)),
        Wrapped::Opaque(_) => Err(VolumeError::WrappedElsewhere(wrapped.key)),
    }
}

/// The parts of a ciphertext of ours, as headers store them.
pub(super) fn recipient(blob: &CiphertextBlob) -> Result<Recipient> {
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
