//! ReEncrypt: the plaintext does not leave the keystore.

use crate::id::{KeyId, MaterialId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::spec::EncryptionAlgorithm;
use crate::keystore::ops::crypto::encrypt::{Encrypted, seal};

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
                let source = (source.key, source.algorithm, source.ciphertext);
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
