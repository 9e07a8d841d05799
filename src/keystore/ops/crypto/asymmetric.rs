//! Sign, Verify, GetPublicKey, DeriveSharedSecret.

use crate::crypto::CryptoError;
use crate::crypto::asym::PrivateKey;
use crate::id::KeyId;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{KeyArn, KeyRef};
use crate::keystore::model::plaintext::Plaintext;
use crate::keystore::model::spec::{KeySpec, MessageType, SigningAlgorithm};
use crate::keystore::policy::Fact;
use crate::keystore::records::algorithm::{check_algorithm, check_len};
use crate::keystore::records::key::KeyMetadata;
use crate::keystore::records::material::LiveMaterial;

/// What Sign made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The key that signed.
    pub key: KeyId,
    /// The signature: of ECDSA in DER, of the others as their standards have it.
    pub signature: Vec<u8>,
}

/// What GetPublicKey answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKeyInfo {
    /// The key.
    pub key: KeyMetadata,
    /// Its public half: `SubjectPublicKeyInfo` in DER.
    pub der: Vec<u8>,
}

/// What DeriveSharedSecret answers.
#[derive(Debug)]
pub struct SharedSecret {
    /// The key.
    pub key: KeyMetadata,
    /// The raw secret: the x coordinate. Wiped when dropped.
    pub secret: Plaintext,
}

impl Keystore {
    /// Signs a message, its digest, or its representative mu.
    /// Shape: a message of 1 to 4096 bytes, a digest as long as the algorithm's.
    /// Errors: `KeyNotFound`, `Disabled`, `InvalidState`, `AccessDenied`; `InvalidKeyUsage` for a
    /// key or an algorithm of another kind, `Validation` for a message in a form or of a length
    /// that the algorithm does not take.
    pub fn sign(
        &self,
        key: &KeyRef,
        algorithm: SigningAlgorithm,
        form: MessageType,
        message: &[u8],
    ) -> Result<Signed, KeystoreError> {
        check_len(message)?;
        let request_context = RequestContext::signing(key, algorithm, form);
        self.operate(Action::Sign, None, |details| {
            let key = self.key_named(key)?;
            let live = self.admitted(Action::Sign, key, request_context, details)?;
            let spec = live.record.spec;
            check_algorithm(algorithm, spec.signing_algorithms(), spec)?;
            let message = algorithm.message(form, message)?;
            self.stop_if_dry()?;
            let signature = private(&live)?.sign(algorithm.scheme(), message)?;
            Ok(Signed { key, signature })
        })
    }

    /// Checks a signature; tells the key that made it.
    /// Errors: as [`Keystore::sign`]; `InvalidSignature`.
    pub fn verify_signature(
        &self,
        key: &KeyRef,
        algorithm: SigningAlgorithm,
        form: MessageType,
        message: &[u8],
        signature: &[u8],
    ) -> Result<KeyId, KeystoreError> {
        check_len(message)?;
        let request_context = RequestContext::signing(key, algorithm, form);
        self.operate(Action::Verify, None, |details| {
            let key = self.key_named(key)?;
            let live = self.admitted(Action::Verify, key, request_context, details)?;
            let spec = live.record.spec;
            check_algorithm(algorithm, spec.signing_algorithms(), spec)?;
            let message = algorithm.message(form, message)?;
            self.stop_if_dry()?;
            let public = private(&live)?.public_key();
            match public.verify(algorithm.scheme(), message, signature) {
                Ok(()) => Ok(key),
                Err(CryptoError::NotAuthentic) => Err(KeystoreError::InvalidSignature),
                Err(other) => Err(other.into()),
            }
        })
    }

    /// The public half of a key, for use outside of the keystore.
    /// Errors: `KeyNotFound`, `Disabled`, `InvalidState`, `AccessDenied`; `UnsupportedOperation`
    /// for a key that has no public half.
    pub fn get_public_key(&self, key: &KeyRef) -> Result<PublicKeyInfo, KeystoreError> {
        let request_context = RequestContext::default().naming(key);
        self.operate(Action::GetPublicKey, None, |details| {
            let key = self.key_named(key)?;
            let live = self.admitted(Action::GetPublicKey, key, request_context, details)?;
            if !live.record.spec.is_asymmetric() {
                let (arn, spec) = (KeyArn(key), live.record.spec);
                return Err(KeystoreError::UnsupportedOperation(format!(
                    "{arn} key spec is {spec} which is not valid for GetPublicKey."
                )));
            }
            self.stop_if_dry()?;
            let der = private(&live)?.public_key().to_spki()?;
            Ok(PublicKeyInfo { key: live.record.metadata(key), der })
        })
    }

    /// The ECDH secret that a key shares with the owner of `peer`, a public key as
    /// `SubjectPublicKeyInfo` in DER.
    /// Errors: `KeyNotFound`, `Disabled`, `InvalidState`, `AccessDenied`, `InvalidKeyUsage`;
    /// `Validation` if `peer` is no public key on the key's curve.
    pub fn derive_shared_secret(
        &self,
        key: &KeyRef,
        peer: &[u8],
    ) -> Result<SharedSecret, KeystoreError> {
        let action = Action::DeriveSharedSecret;
        self.operate(action, None, |details| {
            let request_context =
                RequestContext::default().naming(key).with(Fact::KeyAgreementAlgorithm, "ECDH");
            let live = self.usable(action, self.key_named(key)?, request_context, details)?;
            let secret = private(&live)?.agree(peer).map_err(|error| match error {
                CryptoError::MalformedKey => not_on_curve(live.record.spec),
                other => KeystoreError::Crypto(other),
            })?;
            Ok(SharedSecret { key: live.record.metadata(live.id), secret: Plaintext(secret) })
        })
    }
}

/// The private key of an asymmetric KMS key, which has one material only.
/// Errors: `UnknownMaterial` if it is not here.
pub(in crate::keystore) fn private(live: &LiveKey) -> Result<&PrivateKey, KeystoreError> {
    let material = live.record.current;
    match live.material(material) {
        Some(LiveMaterial::Asymmetric(key)) => Ok(key),
        _ => Err(KeystoreError::UnknownMaterial { key: live.id, material }),
    }
}

fn not_on_curve(spec: KeySpec) -> KeystoreError {
    KeystoreError::Validation(format!(
        "PublicKey is not a DER-encoded X.509 public key of the key spec {spec}."
    ))
}
