//! GenerateDataKey of any length, and GenerateDataKeyWithoutPlaintext.

use zeroize::Zeroizing;

use crate::crypto::random;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;

/// Fresh random bytes and their wrapped form.
#[derive(Debug)]
pub struct RandomDataKey {
    /// The bytes. Wiped when dropped.
    pub plaintext: Plaintext,
    /// The same under the KMS key.
    pub ciphertext: CiphertextBlob,
}

impl Keystore {
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
