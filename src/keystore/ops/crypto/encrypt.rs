//! Encrypt, Decrypt and ReEncrypt with an algorithm that the caller names.
//!
//! A ciphertext of a symmetric key says which key made it. One of an RSA key is what RSA gives,
//! nothing else: who decrypts it has to name the key, and it binds no encryption context.

use std::sync::Arc;

use crate::crypto::CryptoError;
use crate::crypto::digest::HashKind;
use crate::id::{KeyId, MaterialId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::frame::AuditDetails;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;
use crate::keystore::model::spec::{EncryptionAlgorithm, KeySpec};
use crate::keystore::ops::crypto::asymmetric::private;
use crate::keystore::ops::crypto::symmetric::{Decrypted, check_len};
use crate::keystore::records::algorithm::{check_algorithm, incompatible};

/// What Encrypt made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypted {
    /// The key that it was encrypted under.
    pub key: KeyId,
    /// The material of that key.
    pub material: MaterialId,
    /// A [`CiphertextBlob`], or an RSA ciphertext.
    pub ciphertext: Vec<u8>,
}

/// What ReEncrypt decrypts, and how.
#[derive(Debug, Clone, Copy)]
pub struct ReEncryptSource<'a> {
    /// The key that made the ciphertext. Needed if it is an RSA key.
    pub key: Option<&'a KeyRef>,
    /// How it was encrypted.
    pub algorithm: EncryptionAlgorithm,
    /// The ciphertext.
    pub ciphertext: &'a [u8],
    /// The context it was encrypted with.
    pub context: &'a EncryptionContext,
}

/// How ReEncrypt encrypts again.
#[derive(Debug, Clone, Copy)]
pub struct ReEncryptDestination<'a> {
    /// The key.
    pub key: &'a KeyRef,
    /// The algorithm.
    pub algorithm: EncryptionAlgorithm,
    /// The context.
    pub context: &'a EncryptionContext,
}

/// What ReEncrypt made, and from what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReEncrypted {
    /// The key that the old ciphertext was made with.
    pub source: KeyId,
    /// The material of that key.
    pub source_material: MaterialId,
    /// The new ciphertext.
    pub made: Encrypted,
}

impl Keystore {
    /// [`Keystore::encrypt`] by an algorithm that the key has.
    /// Errors: as there; `InvalidKeyUsage` for an algorithm of another kind of key, `Validation`
    /// for more than it can encrypt, or an encryption context for an RSA key.
    pub fn encrypt_with(
        &self,
        key: &KeyRef,
        algorithm: EncryptionAlgorithm,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Encrypted, KeystoreError> {
        let Some(hash) = algorithm.oaep() else {
            return self.encrypt(key, plaintext, context).map(Encrypted::from);
        };
        check_len(plaintext)?;
        self.operate(Action::Encrypt, Some(context), |details| {
            let request_context = RequestContext::encrypting(algorithm, context);
            let live = self.rsa_key(Action::Encrypt, key, algorithm, request_context, details)?;
            algorithm.check_len(live.record.spec, plaintext.len())?;
            self.stop_if_dry()?;
            seal(&live, hash, plaintext)
        })
    }

    /// [`Keystore::decrypt`] by an algorithm that the key has.
    /// Errors: as there; `InvalidKeyUsage` as for [`Keystore::encrypt_with`]; `Validation` for an
    /// RSA ciphertext without a key, or with an encryption context.
    pub fn decrypt_with(
        &self,
        key: Option<&KeyRef>,
        algorithm: EncryptionAlgorithm,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Decrypted, KeystoreError> {
        self.operate(Action::Decrypt, Some(context), |details| {
            let source = ReEncryptSource { key, algorithm, ciphertext, context };
            let request_context = RequestContext::encrypting(algorithm, context);
            self.opened(Action::Decrypt, source, request_context, details)
        })
    }

    /// [`Keystore::re_encrypt`] between keys of any kind.
    /// Errors: those of [`Keystore::decrypt_with`] and [`Keystore::encrypt_with`].
    pub fn re_encrypt_with(
        &self,
        source: ReEncryptSource<'_>,
        destination: ReEncryptDestination<'_>,
    ) -> Result<ReEncrypted, KeystoreError> {
        let (from, to) = (Action::ReEncryptFrom, Action::ReEncryptTo);
        let ReEncryptDestination { key, algorithm, context } = destination;
        let oaep = algorithm.oaep();
        self.operate(to, Some(context), |details| {
            let same = source.key_id(self).is_some_and(|id| self.key_named(key).ok() == Some(id));
            let request_context = RequestContext::encrypting(algorithm, context).on_same_key(same);
            let live = match oaep {
                Some(_) => self.rsa_key(to, key, algorithm, request_context, details)?,
                None => self.admitted_for_making(to, key, request_context, details)?,
            };
            let opened = self.operate(from, Some(source.context), |details| {
                let request_context =
                    RequestContext::encrypting(source.algorithm, source.context).on_same_key(same);
                self.opened(from, source, request_context, details)
            })?;
            let plaintext = opened.plaintext.expose();
            algorithm.check_len(live.record.spec, plaintext.len())?;
            let made = match oaep {
                Some(hash) => seal(&live, hash, plaintext)?,
                None => self.wrap(live.id, context, plaintext, details)?.into(),
            };
            Ok(ReEncrypted { source: opened.key, source_material: opened.material, made })
        })
    }

    /// Decrypt for a dry run that brings no ciphertext.
    /// Errors: as [`Keystore::decrypt_with`]; `DryRun` if it would succeed.
    pub fn try_decrypt(
        &self,
        key: &KeyRef,
        algorithm: EncryptionAlgorithm,
        context: &EncryptionContext,
    ) -> Result<(), KeystoreError> {
        let request_context = RequestContext::encrypting(algorithm, context);
        self.try_use(Action::Decrypt, key, context, request_context)
    }

    /// ReEncrypt for a dry run that brings no ciphertext: from one key, algorithm and context to
    /// another.
    /// Errors: as [`Keystore::re_encrypt_with`]; `DryRun` if it would succeed.
    pub fn try_re_encrypt(
        &self,
        source: ReEncryptDestination<'_>,
        destination: ReEncryptDestination<'_>,
    ) -> Result<(), KeystoreError> {
        let named = |half: ReEncryptDestination<'_>| self.key_named(half.key).ok();
        let same = named(source).is_some() && named(source) == named(destination);
        let half = |action, half: ReEncryptDestination<'_>| {
            let request_context =
                RequestContext::encrypting(half.algorithm, half.context).on_same_key(same);
            self.try_use(action, half.key, half.context, request_context)
        };
        match half(Action::ReEncryptFrom, source) {
            Err(KeystoreError::DryRun) => half(Action::ReEncryptTo, destination),
            other => other,
        }
    }

    fn try_use(
        &self,
        action: Action,
        key: &KeyRef,
        context: &EncryptionContext,
        request_context: RequestContext<'_>,
    ) -> Result<(), KeystoreError> {
        self.operate(action, Some(context), |details| {
            self.usable(action, self.key_named(key)?, request_context.naming(key), details)
                .map(drop)
        })
    }

    fn opened(
        &self,
        action: Action,
        source: ReEncryptSource<'_>,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Decrypted, KeystoreError> {
        let ReEncryptSource { key, algorithm, ciphertext, .. } = source;
        let Some(hash) = algorithm.oaep() else {
            self.check_names_symmetric(key)?;
            let blob = CiphertextBlob::parse(ciphertext)?;
            return self.unwrap(action, &blob, key, request_context, details);
        };
        let key = key.ok_or_else(|| {
            KeystoreError::Validation(format!("KeyId is required for the algorithm {algorithm}."))
        })?;
        let live = self.rsa_key(action, key, algorithm, request_context, details)?;
        self.stop_if_dry()?;
        let opened = private(&live)?.decrypt(hash, ciphertext).map_err(|error| match error {
            CryptoError::NotAuthentic => KeystoreError::InvalidCiphertext,
            other => KeystoreError::Crypto(other),
        })?;
        let material = live.record.current;
        Ok(Decrypted { plaintext: Plaintext(opened), key: live.id, material })
    }

    /// A key that is named for a ciphertext of a symmetric key has to be one.
    fn check_names_symmetric(&self, key: Option<&KeyRef>) -> Result<(), KeystoreError> {
        let Some(key) = key else { return Ok(()) };
        match self.live(self.key_named(key)?)?.record.spec {
            KeySpec::SymmetricDefault => Ok(()),
            spec => Err(incompatible(EncryptionAlgorithm::SymmetricDefault, spec)),
        }
    }

    /// A key that encrypts or decrypts by an algorithm of RSA.
    fn rsa_key(
        &self,
        action: Action,
        key: &KeyRef,
        algorithm: EncryptionAlgorithm,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        let has_context =
            request_context.context.is_some_and(|context| context.pairs().next().is_some());
        let live =
            self.admitted(action, self.key_named(key)?, request_context.naming(key), details)?;
        let spec = live.record.spec;
        check_algorithm(algorithm, spec.encryption_algorithms(), spec)?;
        if has_context {
            let problem = format!("An encryption context is not valid for algorithm {algorithm}.");
            return Err(KeystoreError::Validation(problem));
        }
        details.material = Some(live.record.current);
        Ok(live)
    }
}

impl ReEncryptSource<'_> {
    /// The key that decrypts it, if that can be told.
    fn key_id(&self, keystore: &Keystore) -> Option<KeyId> {
        match (self.algorithm.oaep(), self.key) {
            (None, _) => CiphertextBlob::parse(self.ciphertext).ok().map(|blob| blob.key_id()),
            (Some(_), key) => keystore.key_named(key?).ok(),
        }
    }
}

impl From<CiphertextBlob> for Encrypted {
    fn from(blob: CiphertextBlob) -> Self {
        let (key, material) = (blob.key_id(), blob.material_id());
        Self { key, material, ciphertext: blob.as_bytes().to_vec() }
    }
}

fn seal(live: &LiveKey, hash: HashKind, plaintext: &[u8]) -> Result<Encrypted, KeystoreError> {
    let ciphertext = private(live)?.public_key().encrypt(hash, plaintext)?;
    Ok(Encrypted { key: live.id, material: live.record.current, ciphertext })
}
