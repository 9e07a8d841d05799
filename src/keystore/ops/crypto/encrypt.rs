//! Encrypt and Decrypt, with a symmetric key or an algorithm that the caller names.
//!
//! A ciphertext of a symmetric key says which key made it. One of an RSA key is what RSA gives,
//! nothing else: who decrypts it has to name the key, and it binds no encryption context.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::crypto::CryptoError;
use crate::crypto::digest::HashKind;
use crate::id::{KeyId, MaterialId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::frame::AuditDetails;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::{self, CiphertextBlob};
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;
use crate::keystore::model::spec::{EncryptionAlgorithm, KeySpec};
use crate::keystore::ops::crypto::asymmetric::private;
use crate::keystore::records::algorithm::{
    check_algorithm, check_len, check_symmetric, incompatible,
};

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

/// What Decrypt found, and under which key.
#[derive(Debug)]
pub struct Decrypted {
    /// The plaintext. Wiped when dropped.
    pub plaintext: Plaintext,
    /// The key that made the ciphertext.
    pub key: KeyId,
    /// The material that made it.
    pub material: MaterialId,
}

impl Keystore {
    /// Encrypts a short plaintext under the key's current material.
    /// Shape: 1 to 4096 bytes.
    /// Errors: as [`Keystore::generate_data_key`]; `Validation` for another length.
    pub fn encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        context: &EncryptionContext,
    ) -> Result<CiphertextBlob, KeystoreError> {
        check_len(plaintext)?;
        self.operate(Action::Encrypt, Some(context), |details| {
            let request_context = RequestContext::symmetric(context);
            let key = self.usable_for_making(Action::Encrypt, key, request_context, details)?;
            self.wrap(key, context, plaintext, details)
        })
    }

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

    /// Decrypts under the key and the material that the ciphertext names.
    /// Errors: `IncorrectKey` when `key` names another one; `InvalidCiphertext`,
    /// `UnknownMaterial`, `KeyNotFound`, `Disabled`, `InvalidState`, `AccessDenied`.
    pub fn decrypt(
        &self,
        ciphertext: &CiphertextBlob,
        context: &EncryptionContext,
        key: Option<&KeyRef>,
    ) -> Result<Decrypted, KeystoreError> {
        self.operate(Action::Decrypt, Some(context), |details| {
            self.unwrap(
                Action::Decrypt,
                ciphertext,
                key,
                RequestContext::symmetric(context),
                details,
            )
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
            let request_context = RequestContext::encrypting(algorithm, context);
            self.opened(Action::Decrypt, (key, algorithm, ciphertext), request_context, details)
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

    pub(super) fn try_use(
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

    /// The plaintext of a ciphertext, by the algorithm that the caller names.
    pub(super) fn opened(
        &self,
        action: Action,
        (key, algorithm, ciphertext): (Option<&KeyRef>, EncryptionAlgorithm, &[u8]),
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Decrypted, KeystoreError> {
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
        let opened = private(&live)?.decrypt(hash, ciphertext).map_err(invalid)?;
        let material = live.record.current;
        Ok(Decrypted { plaintext: Plaintext(opened), key: live.id, material })
    }

    pub(super) fn unwrap(
        &self,
        action: Action,
        ciphertext: &CiphertextBlob,
        key: Option<&KeyRef>,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Decrypted, KeystoreError> {
        if let Some(key) = key
            && self.resolve(key)? != ciphertext.key_id()
        {
            return Err(KeystoreError::IncorrectKey);
        }
        let none = EncryptionContext::new();
        let context = request_context.context.unwrap_or(&none);
        let request_context = request_context.naming_maybe(key);
        let live = self.admitted(action, ciphertext.key_id(), request_context, details)?;
        check_symmetric(action, live.record.spec)?;
        self.stop_if_dry()?;
        let material_id = ciphertext.material_id();
        details.material = Some(material_id);
        let plaintext = Plaintext(open(&live, ciphertext, context)?);
        Ok(Decrypted { plaintext, key: live.id, material: material_id })
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
    pub(super) fn rsa_key(
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

impl From<CiphertextBlob> for Encrypted {
    fn from(blob: CiphertextBlob) -> Self {
        let (key, material) = (blob.key_id(), blob.material_id());
        Self { key, material, ciphertext: blob.as_bytes().to_vec() }
    }
}

pub(super) fn seal(
    live: &LiveKey,
    hash: HashKind,
    plaintext: &[u8],
) -> Result<Encrypted, KeystoreError> {
    let ciphertext = private(live)?.public_key().encrypt(hash, plaintext)?;
    Ok(Encrypted { key: live.id, material: live.record.current, ciphertext })
}

fn open(
    key: &LiveKey,
    ciphertext: &CiphertextBlob,
    context: &EncryptionContext,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let id = ciphertext.material_id();
    if let Some(link) = &key.link {
        let sealed = ciphertext.sealed_on_token().ok_or(KeystoreError::InvalidCiphertext)?;
        return link.open((key.id, id), &blob::token_aad(key.id, id, context), &sealed);
    }
    let opened = key.symmetric(id)?.open(&blob::aad(key.id, id, context), ciphertext.sealed());
    opened.map_err(invalid)
}

fn invalid(error: CryptoError) -> KeystoreError {
    match error {
        CryptoError::NotAuthentic => KeystoreError::InvalidCiphertext,
        other => KeystoreError::Crypto(other),
    }
}
