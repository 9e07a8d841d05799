//! Import keys: the RSA keys that material is wrapped for on its way into a KMS key.
//!
//! An import key lives for a day. Its private half is sealed under the wrapping key of the KMS key
//! that it is for; its token says which one it is and until when, sealed as well, so that a token
//! that is over is told from one that was never given.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::asym::{KeyKind, PrivateKey};
use crate::crypto::digest::HashKind;
use crate::crypto::{CryptoError, keywrap, random};
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::spec::{KeySpec, WrappingAlgorithm, WrappingKeySpec};
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::material;
use crate::keystore::storage::root::encode_parts;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record, Writer, base64, tampered};

/// What GetParametersForImport answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportParameters {
    /// The KMS key.
    pub key: KeyId,
    /// Goes with the wrapped material into ImportKeyMaterial.
    pub token: Vec<u8>,
    /// What to wrap the material with: `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// When token and public key are over.
    pub valid_to: UnixTime,
}

/// The stored form of an import key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::keystore) struct ImportKeyRecord {
    pub(in crate::keystore) valid_to: UnixTime,
    algorithm: WrappingAlgorithm,
    spec: WrappingKeySpec,
    #[serde(with = "base64")]
    sealed: Vec<u8>,
}

impl Record for ImportKeyRecord {
    const TABLE: Table = Table::ImportKey;
}

/// What an opened token says.
struct Token {
    id: [u8; 16],
    valid_to: UnixTime,
}

/// Stores an import key for a KMS key.
pub(in crate::keystore) fn store(
    writer: &mut Writer<'_>,
    key: KeyId,
    private: &PrivateKey,
    algorithm: WrappingAlgorithm,
    spec: WrappingKeySpec,
    now: UnixTime,
) -> Result<ImportParameters, KeystoreError> {
    let token = Token { id: random::id16()?, valid_to: now.plus_days(1) };
    let sealed = material::seal(writer, key, &key_aad(key, &token.id), &private.to_pkcs8()?)?;
    let record = ImportKeyRecord { valid_to: token.valid_to, algorithm, spec, sealed };
    writer.put(&token.id, Some(key), &record)?;
    Ok(ImportParameters {
        key,
        token: token.seal(writer, key)?,
        public_key: private.public_key().to_spki()?,
        valid_to: token.valid_to,
    })
}

/// The material that was wrapped for the import key of this token.
/// Errors: `InvalidImportToken`, `ExpiredImportToken`; `InvalidCiphertext` without detail.
pub(in crate::keystore) fn unwrap(
    reader: &Reader<'_>,
    key: KeyId,
    token: &[u8],
    encrypted: &[u8],
    now: UnixTime,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let token = Token::open(reader, key, token)?;
    if token.valid_to <= now {
        return Err(KeystoreError::ExpiredImportToken);
    }
    let record: ImportKeyRecord =
        reader.get(&token.id)?.ok_or(KeystoreError::InvalidImportToken)?;
    let der = material::unseal(reader, key, &key_aad(key, &token.id), &record.sealed)?;
    let private = der.and_then(|der| PrivateKey::from_pkcs8(kind(record.spec), &der).ok());
    let private = private.ok_or_else(|| tampered(Table::ImportKey, &token.id))?;
    open(&private, record.algorithm, encrypted).map_err(|_| KeystoreError::InvalidCiphertext)
}

/// Can material of this kind be wrapped in this way?
/// Errors: `UnsupportedOperation`.
pub(in crate::keystore) fn check_wrapping(
    spec: KeySpec,
    algorithm: WrappingAlgorithm,
    wrapping: WrappingKeySpec,
) -> Result<(), KeystoreError> {
    use KeySpec::{EccNistP521, Rsa2048, Rsa3072, Rsa4096};
    let direct = hash_of(algorithm).1 == Wrapped::Material;
    let too_long = match spec {
        Rsa2048 | Rsa3072 | Rsa4096 => direct,
        EccNistP521 => direct && wrapping == WrappingKeySpec::Rsa2048,
        _ => false,
    };
    if !too_long {
        return Ok(());
    }
    Err(KeystoreError::UnsupportedOperation(format!(
        "Key material of the key spec {spec} cannot be wrapped by {algorithm} with a wrapping key \
         of the spec {wrapping}; use an RSA_AES_KEY_WRAP algorithm."
    )))
}

/// The kind of an import key.
pub(in crate::keystore) const fn kind(spec: WrappingKeySpec) -> KeyKind {
    match spec {
        WrappingKeySpec::Rsa2048 => KeyKind::Rsa2048,
        WrappingKeySpec::Rsa3072 => KeyKind::Rsa3072,
        WrappingKeySpec::Rsa4096 => KeyKind::Rsa4096,
    }
}

/// What RSA wraps.
#[derive(PartialEq, Eq)]
enum Wrapped {
    Material,
    AesKey,
}

const fn hash_of(algorithm: WrappingAlgorithm) -> (HashKind, Wrapped) {
    match algorithm {
        WrappingAlgorithm::RsaesOaepSha1 => (HashKind::Sha1, Wrapped::Material),
        WrappingAlgorithm::RsaesOaepSha256 => (HashKind::Sha256, Wrapped::Material),
        WrappingAlgorithm::RsaAesKeyWrapSha1 => (HashKind::Sha1, Wrapped::AesKey),
        WrappingAlgorithm::RsaAesKeyWrapSha256 => (HashKind::Sha256, Wrapped::AesKey),
    }
}

/// Source: PKCS #11 v3.0 §2.1.21 for the wrapping with an AES key.
fn open(
    private: &PrivateKey,
    algorithm: WrappingAlgorithm,
    encrypted: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    match hash_of(algorithm) {
        (hash, Wrapped::Material) => private.decrypt(hash, encrypted),
        (hash, Wrapped::AesKey) => {
            let len = private.kind().modulus_len().unwrap_or_default();
            let (rsa, aes) = encrypted.split_at_checked(len).ok_or(CryptoError::NotAuthentic)?;
            keywrap::unwrap(&private.decrypt(hash, rsa)?, aes)
        }
    }
}

impl Token {
    fn seal(&self, reader: &Reader<'_>, key: KeyId) -> Result<Vec<u8>, KeystoreError> {
        let mut body = self.id.to_vec();
        body.extend_from_slice(&self.valid_to.seconds().to_be_bytes());
        Ok(reader.root().seal_row(&token_aad(key), &body)?)
    }

    /// Errors: `InvalidImportToken`, also for a token of another key.
    fn open(reader: &Reader<'_>, key: KeyId, token: &[u8]) -> Result<Self, KeystoreError> {
        let body = reader.root().open_row(&token_aad(key), token).ok();
        let read = |body: &[u8]| {
            let (id, seconds) = body.split_first_chunk::<16>()?;
            let seconds = i64::from_be_bytes(seconds.try_into().ok()?);
            Some(Self { id: *id, valid_to: UnixTime::from_seconds(seconds) })
        };
        body.and_then(|body| read(&body)).ok_or(KeystoreError::InvalidImportToken)
    }
}

fn key_aad(key: KeyId, id: &[u8; 16]) -> Vec<u8> {
    encode_parts(&[b"import key", key.as_bytes(), id])
}

fn token_aad(key: KeyId) -> Vec<u8> {
    encode_parts(&[b"import token", key.as_bytes()])
}
