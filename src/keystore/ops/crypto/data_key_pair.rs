//! GenerateDataKeyPair, GenerateDataKeyPairWithoutPlaintext.

use crate::crypto::asym::{KeyKind, PrivateKey};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;
use crate::keystore::model::spec::KeySpec;
use crate::keystore::policy::Fact;
use crate::keystore::records::algorithm::Form;

/// A fresh key pair for use outside of the keystore, and its private half wrapped.
#[derive(Debug)]
pub struct DataKeyPair {
    /// The private half as PKCS #8 in DER. Wiped when dropped.
    pub private: Plaintext,
    /// The private half under the KMS key.
    pub private_ciphertext: CiphertextBlob,
    /// The public half: `SubjectPublicKeyInfo` in DER.
    pub public: Vec<u8>,
}

impl Keystore {
    /// A new RSA, ECC or Ed25519 key pair, its private half wrapped under a symmetric key.
    /// Errors: as [`Keystore::generate_data_key`]; `Validation` for kinds without pairs.
    pub fn generate_data_key_pair(
        &self,
        key: &KeyRef,
        spec: KeySpec,
        context: &EncryptionContext,
    ) -> Result<DataKeyPair, KeystoreError> {
        self.key_pair(Action::GenerateDataKeyPair, key, spec, context)
    }

    /// The same, of which only the wrapped private half and the public half are to be given to
    /// the caller.
    /// Errors: as [`Keystore::generate_data_key_pair`].
    pub fn generate_data_key_pair_without_plaintext(
        &self,
        key: &KeyRef,
        spec: KeySpec,
        context: &EncryptionContext,
    ) -> Result<(CiphertextBlob, Vec<u8>), KeystoreError> {
        let action = Action::GenerateDataKeyPairWithoutPlaintext;
        let pair = self.key_pair(action, key, spec, context)?;
        Ok((pair.private_ciphertext, pair.public))
    }

    fn key_pair(
        &self,
        action: Action,
        key: &KeyRef,
        spec: KeySpec,
        context: &EncryptionContext,
    ) -> Result<DataKeyPair, KeystoreError> {
        let kind = pair_kind(spec)?;
        self.operate(action, Some(context), |details| {
            let request_context =
                RequestContext::symmetric(context).with(Fact::DataKeyPairSpec, spec.as_str());
            let key = self.usable_for_making(action, key, request_context, details)?;
            let pair = PrivateKey::generate(kind)?;
            let private = pair.to_pkcs8()?;
            Ok(DataKeyPair {
                private_ciphertext: self.wrap(key, context, &private, details)?,
                private: Plaintext(private),
                public: pair.public_key().to_spki()?,
            })
        })
    }
}

/// The kinds that AWS makes pairs of: all but ML-DSA.
fn pair_kind(spec: KeySpec) -> Result<KeyKind, KeystoreError> {
    match spec.form() {
        Form::Asymmetric(KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87)
        | Form::Symmetric
        | Form::Mac(_) => {
            Err(KeystoreError::Validation(format!("{spec} is not a spec of data key pairs")))
        }
        Form::Asymmetric(kind) => Ok(kind),
    }
}
