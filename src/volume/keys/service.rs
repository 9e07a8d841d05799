//! What a volume asks of a KMS: the seam with two implementations, the keystore on this machine
//! (`local`) and an endpoint that speaks the protocol of AWS KMS (`remote`).

use crate::crypto::secret::Secret;
use crate::envelope::Recipient;
use crate::id::{KeyId, MaterialId};
use crate::keystore::{EncryptionContext, Keystore};
use crate::volume::model::error::Result;

/// A KMS, as a volume uses it for its own needs. What users may do is asked separately.
pub trait KeyService: Send + Sync {
    /// A fresh 32-byte key and its wrap under `key`.
    ///
    /// # Errors
    /// `KeyUnusable` when the KMS key may not be used now; `KmsUnreachable`.
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)>;

    /// Unwraps a key.
    ///
    /// # Errors
    /// As [`Self::generate`]; `Tampered` for a wrap that was made for something else, or changed.
    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>>;

    /// Wraps the same key again: under another KMS key, or the same one's current material.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient>;

    /// The material that new wraps under `key` use.
    ///
    /// # Errors
    /// As [`Self::generate`].
    fn current_material(&self, key: KeyId) -> Result<MaterialId>;

    /// The key that a person means by an id, an ARN or an alias.
    ///
    /// # Errors
    /// `Kms` in the words of the KMS when there is no such key; `KmsUnreachable`.
    fn find_key(&self, name: &str) -> Result<KeyId>;

    /// Notices what others changed a moment ago.
    ///
    /// # Errors
    /// `Keystore` when it cannot be read.
    fn refresh(&self) -> Result<()>;

    /// The keystore on this machine, which also decides what the users of a mount may do. `None`
    /// when a service elsewhere decides that.
    fn keystore(&self) -> Option<&Keystore>;

    /// What became of these keys. Asked several times a second, so it never waits for a network.
    /// A key that nothing is known of now is left out: it stays as it was.
    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)>;
}

/// What can be done with a key now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyHealth {
    /// Everything.
    Usable,
    /// Nothing: it is disabled, about to be deleted, or gone.
    Unusable,
    /// Its KMS has not answered for so long that the key counts as revoked.
    Unreachable,
}
