//! GenerateDataKey and GenerateDataKeyWithoutPlaintext.

use zeroize::Zeroizing;

use crate::crypto::{Secret, random};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;

/// A fresh data key and its wrapped form.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself.
    pub plaintext: Secret<32>,
    /// The key under the KMS key, to be stored.
    pub ciphertext: CiphertextBlob,
}

/// Fresh random bytes and their wrapped form.
#[derive(Debug)]
pub struct RandomDataKey {
    /// The bytes. Wiped when dropped.
    pub plaintext: Plaintext,
    /// The same under the KMS key.
    pub ciphertext: CiphertextBlob,
}

impl Keystore {
    /// A new 256-bit data key, wrapped under the key's current material.
    /// Errors: `KeyNotFound`, `AliasNotFound`, `Disabled`, `InvalidState`, `AccessDenied`.
    /// Source: GenerateDataKey with `KeySpec=AES_256`.
    pub fn generate_data_key(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
    ) -> Result<DataKey, KeystoreError> {
        let action = Action::GenerateDataKey;
        self.operate(action, Some(context), |details| {
            let key =
                self.usable_for_making(action, key, RequestContext::symmetric(context), details)?;
            let plaintext = Secret::random()?;
            let ciphertext = self.wrap(key, context, plaintext.expose(), details)?;
            Ok(DataKey { plaintext, ciphertext })
        })
    }

    /// Unwraps a data key: [`Keystore::decrypt`] for a plaintext of 32 bytes.
    /// Errors: as `decrypt`; `InvalidCiphertext` for a plaintext of another length.
    pub fn decrypt_data_key(
        &self,
        ciphertext: &CiphertextBlob,
        context: &EncryptionContext,
    ) -> Result<Secret<32>, KeystoreError> {
        let opened = self.decrypt(ciphertext, context, None)?;
        Secret::from_slice(opened.plaintext.expose()).ok_or(KeystoreError::InvalidCiphertext)
    }

    /// A data key of `len` bytes.
    /// Shape: 1 to 1024 bytes.
    /// Errors: as [`Keystore::generate_data_key`]; `Validation` for another length.
    pub fn generate_data_key_of(
        &self,
        key: &KeyRef,
        len: usize,
        context: &EncryptionContext,
    ) -> Result<RandomDataKey, KeystoreError> {
        self.random_key(Action::GenerateDataKey, key, len, context)
    }

    /// The wrapped form of a data key of `len` bytes that nobody has seen.
    /// Shape, Errors: as [`Keystore::generate_data_key_of`].
    pub fn generate_data_key_without_plaintext(
        &self,
        key: &KeyRef,
        len: usize,
        context: &EncryptionContext,
    ) -> Result<CiphertextBlob, KeystoreError> {
        let action = Action::GenerateDataKeyWithoutPlaintext;
        self.random_key(action, key, len, context).map(|made| made.ciphertext)
    }

    fn random_key(
        &self,
        action: Action,
        key: &KeyRef,
        len: usize,
        context: &EncryptionContext,
    ) -> Result<RandomDataKey, KeystoreError> {
        if !(1..=MAX_BYTES).contains(&len) {
            let problem = format!("a data key has 1 to {MAX_BYTES} bytes, not {len}");
            return Err(KeystoreError::Validation(problem));
        }
        self.operate(action, Some(context), |details| {
            let key =
                self.usable_for_making(action, key, RequestContext::symmetric(context), details)?;
            let mut bytes = Zeroizing::new(vec![0; len]);
            random::fill(&mut bytes)?;
            let ciphertext = self.wrap(key, context, &bytes, details)?;
            Ok(RandomDataKey { plaintext: Plaintext(bytes), ciphertext })
        })
    }
}

/// The longest data key.
const MAX_BYTES: usize = 1024;
