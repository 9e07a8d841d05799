//! GenerateDataKey, Encrypt, Decrypt, ReEncrypt.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::crypto::xaes::XaesKey;
use crate::crypto::{CryptoError, Secret};
use crate::id::{KeyId, MaterialId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::frame::AuditDetails;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::{self, CiphertextBlob, MAX_PLAINTEXT};
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::plaintext::Plaintext;
use crate::keystore::model::spec::{EncryptionAlgorithm, KeySpec};
use crate::keystore::records::algorithm::incompatible;
use crate::keystore::records::key::{KeyRecord, Operation, permit};
use crate::keystore::records::material::LiveMaterial;

/// A fresh data key and its wrapped form.
#[derive(Debug)]
pub struct DataKey {
    /// The key itself.
    pub plaintext: Secret<32>,
    /// The key under the KMS key, to be stored.
    pub ciphertext: CiphertextBlob,
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

    /// Decrypts and encrypts again, under another key or the same key's current material. The
    /// plaintext does not leave the keystore. Written down for either key.
    /// Errors: those of `decrypt` and `encrypt`.
    pub fn re_encrypt(
        &self,
        ciphertext: &CiphertextBlob,
        source_context: &EncryptionContext,
        destination: &KeyRef,
        destination_context: &EncryptionContext,
    ) -> Result<CiphertextBlob, KeystoreError> {
        let (from, to) = (Action::ReEncryptFrom, Action::ReEncryptTo);
        self.operate(to, Some(destination_context), |details| {
            let same = self.resolve(destination)? == ciphertext.key_id();
            let request_context = RequestContext::symmetric(destination_context).on_same_key(same);
            let destination = self.usable_for_making(to, destination, request_context, details)?;
            let opened = self.operate(from, Some(source_context), |details| {
                let request_context = RequestContext::symmetric(source_context).on_same_key(same);
                self.unwrap(from, ciphertext, None, request_context, details)
            })?;
            self.wrap(destination, destination_context, opened.plaintext.expose(), details)
        })
    }

    pub(in crate::keystore) fn unwrap(
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
        check_symmetric(action, &live)?;
        self.stop_if_dry()?;
        let material_id = ciphertext.material_id();
        details.material = Some(material_id);
        let plaintext = Plaintext(open(&live, ciphertext, context)?);
        Ok(Decrypted { plaintext, key: live.id, material: material_id })
    }

    /// A symmetric key with which the caller may make ciphertexts with the context of the request.
    pub(in crate::keystore) fn usable_for_making(
        &self,
        action: Action,
        key: &KeyRef,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<KeyId, KeystoreError> {
        let live = self.admitted_for_making(action, key, request_context, details)?;
        self.stop_if_dry()?;
        Ok(live.id)
    }

    /// The plaintext under the current material of a symmetric key that the caller may use. Nothing
    /// lies between the look for what is current and the use of it: another process may have rotated
    /// the key while this one made the plaintext, and have retired the material.
    pub(in crate::keystore) fn wrap(
        &self,
        key: KeyId,
        context: &EncryptionContext,
        plaintext: &[u8],
        details: &mut AuditDetails,
    ) -> Result<CiphertextBlob, KeystoreError> {
        let of_volume = self.caller().volume_context && context.is_reserved();
        if of_volume && self.caller().source.is_remote() {
            self.note_served_host()?;
        }
        let live = self.about_to_wrap(key, of_volume)?;
        details.material = Some(live.record.current);
        wrap(&live, context, plaintext)
    }

    /// A key as it is now. Ciphertexts that are no headers of files are noted durably, before the
    /// material makes the first: nothing is known of these again, and it must not go unasked.
    fn about_to_wrap(&self, key: KeyId, of_volume: bool) -> Result<Arc<LiveKey>, KeystoreError> {
        self.look_if_due()?;
        loop {
            let live = self.live(key)?;
            permit(Operation::Crypto, key, live.record.state_at(self.caller().time().into()))?;
            let material = live.record.current;
            if of_volume || live.record.programs.contains(&material) {
                return Ok(live);
            }
            self.write(|writer| {
                let mut record = KeyRecord::find(writer, key)?;
                // Another process may have rotated it by now: then its new material is noted next.
                match record.current == material && record.programs.insert(material) {
                    true => record.save(writer, key),
                    false => Ok(()),
                }
            })?;
        }
    }

    /// As [`Keystore::usable_for_making`], also for a dry run.
    pub(in crate::keystore) fn admitted_for_making(
        &self,
        action: Action,
        key: &KeyRef,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        let reserved = request_context.context.is_some_and(EncryptionContext::is_reserved);
        if reserved && !self.caller().volume_context {
            return Err(KeystoreError::AccessDenied(
                "encryption context keys that start with 'kmsfs:' are reserved for volumes: an access \
                 key made by 'kmsfs access-key create --for-volumes' may use them"
                    .into(),
            ));
        }
        let live =
            self.admitted(action, self.resolve(key)?, request_context.naming(key), details)?;
        check_symmetric(action, &live)?;
        details.material = Some(live.record.current);
        Ok(live)
    }
}

fn wrap(
    key: &LiveKey,
    context: &EncryptionContext,
    plaintext: &[u8],
) -> Result<CiphertextBlob, KeystoreError> {
    let current = key.record.current;
    if let Some(link) = &key.link {
        let aad = blob::token_aad(key.id, current, context);
        let sealed = link.seal((key.id, current), &aad, plaintext)?;
        let blob = CiphertextBlob::from_token(key.id, current, &sealed);
        return blob.ok_or(KeystoreError::InvalidCiphertext);
    }
    let material = material(key, current)?;
    let sealed = material.seal(&blob::aad(key.id, key.record.current, context), plaintext)?;
    CiphertextBlob::from_parts(key.id, key.record.current, &sealed)
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
    let opened = material(key, id)?.open(&blob::aad(key.id, id, context), ciphertext.sealed());
    opened.map_err(invalid)
}

fn material(key: &LiveKey, material: MaterialId) -> Result<&XaesKey, KeystoreError> {
    match key.material(material) {
        Some(LiveMaterial::Symmetric(key)) => Ok(key),
        _ => Err(KeystoreError::UnknownMaterial { key: key.id, material }),
    }
}

/// Errors: `Validation`.
pub(in crate::keystore) fn check_len(plaintext: &[u8]) -> Result<(), KeystoreError> {
    let len = plaintext.len();
    if (1..=MAX_PLAINTEXT).contains(&len) {
        return Ok(());
    }
    let problem = format!("a plaintext has 1 to {MAX_PLAINTEXT} bytes, not {len}");
    Err(KeystoreError::Validation(problem))
}

/// Errors: `InvalidKeyUsage` for an RSA key, in AWS's words.
fn check_symmetric(action: Action, key: &LiveKey) -> Result<(), KeystoreError> {
    match (key.record.spec, action) {
        (KeySpec::SymmetricDefault, _) => Ok(()),
        (spec, Action::Encrypt | Action::Decrypt | Action::ReEncryptFrom | Action::ReEncryptTo) => {
            Err(incompatible(EncryptionAlgorithm::SymmetricDefault, spec))
        }
        _ => {
            let problem = "You cannot generate a data key with an asymmetric CMK".to_owned();
            Err(KeystoreError::InvalidKeyUsage(problem))
        }
    }
}

fn invalid(error: CryptoError) -> KeystoreError {
    match error {
        CryptoError::NotAuthentic => KeystoreError::InvalidCiphertext,
        other => KeystoreError::Crypto(other),
    }
}
