//! AWS's names in terms of the primitives, and what goes with what.

use crate::crypto::asym::{KeyKind, Message, SignatureScheme, max_plaintext};
use crate::crypto::digest::HashKind;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::blob::MAX_PLAINTEXT;
use crate::keystore::model::id::KeyArn;
use crate::keystore::model::spec::{
    EncryptionAlgorithm, KeySpec, KeyUsage, MacAlgorithm, MessageType, SigningAlgorithm,
};
use crate::keystore::records::key::KeyRecord;

/// The form that a key's material has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum Form {
    /// 32 bytes.
    Symmetric,
    /// This many bytes.
    Mac(usize),
    /// A private key, as PKCS #8.
    Asymmetric(KeyKind),
}

impl KeySpec {
    /// The form of a material of this kind.
    pub(in crate::keystore) const fn form(self) -> Form {
        match self {
            Self::SymmetricDefault => Form::Symmetric,
            Self::Hmac224 => Form::Mac(28),
            Self::Hmac256 => Form::Mac(32),
            Self::Hmac384 => Form::Mac(48),
            Self::Hmac512 => Form::Mac(64),
            Self::Rsa2048 => Form::Asymmetric(KeyKind::Rsa2048),
            Self::Rsa3072 => Form::Asymmetric(KeyKind::Rsa3072),
            Self::Rsa4096 => Form::Asymmetric(KeyKind::Rsa4096),
            Self::EccNistP256 => Form::Asymmetric(KeyKind::P256),
            Self::EccNistP384 => Form::Asymmetric(KeyKind::P384),
            Self::EccNistP521 => Form::Asymmetric(KeyKind::P521),
            Self::EccSecgP256k1 => Form::Asymmetric(KeyKind::Secp256k1),
            Self::EccNistEdwards25519 => Form::Asymmetric(KeyKind::Ed25519),
            Self::MlDsa44 => Form::Asymmetric(KeyKind::MlDsa44),
            Self::MlDsa65 => Form::Asymmetric(KeyKind::MlDsa65),
            Self::MlDsa87 => Form::Asymmetric(KeyKind::MlDsa87),
        }
    }
}

impl EncryptionAlgorithm {
    /// The hash function of OAEP; `None` for the symmetric algorithm.
    pub(in crate::keystore) const fn oaep(self) -> Option<HashKind> {
        match self {
            Self::SymmetricDefault => None,
            Self::RsaesOaepSha1 => Some(HashKind::Sha1),
            Self::RsaesOaepSha256 => Some(HashKind::Sha256),
        }
    }

    /// Errors: `Validation`, in AWS's words, for more than a key of this kind encrypts.
    pub(in crate::keystore) fn check_len(
        self,
        spec: KeySpec,
        len: usize,
    ) -> Result<(), KeystoreError> {
        let (Form::Asymmetric(kind), Some(hash)) = (spec.form(), self.oaep()) else {
            return Ok(());
        };
        match max_plaintext(kind, hash) {
            Some(max) if len > max => Err(KeystoreError::Validation(format!(
                "Algorithm {self} and key spec {spec} cannot encrypt data larger than {max} bytes."
            ))),
            _ => Ok(()),
        }
    }
}

impl SigningAlgorithm {
    /// The scheme of the primitives.
    pub(in crate::keystore) const fn scheme(self) -> SignatureScheme {
        match self {
            Self::RsassaPssSha256 => SignatureScheme::RsaPss(HashKind::Sha256),
            Self::RsassaPssSha384 => SignatureScheme::RsaPss(HashKind::Sha384),
            Self::RsassaPssSha512 => SignatureScheme::RsaPss(HashKind::Sha512),
            Self::RsassaPkcs1V15Sha256 => SignatureScheme::RsaPkcs1(HashKind::Sha256),
            Self::RsassaPkcs1V15Sha384 => SignatureScheme::RsaPkcs1(HashKind::Sha384),
            Self::RsassaPkcs1V15Sha512 => SignatureScheme::RsaPkcs1(HashKind::Sha512),
            Self::EcdsaSha256 => SignatureScheme::Ecdsa(HashKind::Sha256),
            Self::EcdsaSha384 => SignatureScheme::Ecdsa(HashKind::Sha384),
            Self::EcdsaSha512 => SignatureScheme::Ecdsa(HashKind::Sha512),
            Self::Ed25519Sha512 => SignatureScheme::Ed25519,
            Self::Ed25519PhSha512 => SignatureScheme::Ed25519ph,
            Self::MlDsaShake256 => SignatureScheme::MlDsa,
        }
    }

    /// What is to be signed, if the algorithm takes it in this form and length.
    /// Errors: `Validation`.
    pub(in crate::keystore) fn message(
        self,
        form: MessageType,
        bytes: &[u8],
    ) -> Result<Message<'_>, KeystoreError> {
        let (message, len) = match (self.scheme(), form) {
            (SignatureScheme::Ed25519ph, MessageType::Raw) => return Err(self.refuses(form)),
            (_, MessageType::Raw) => (Message::Raw(bytes), None),
            (SignatureScheme::RsaPss(hash), MessageType::Digest)
            | (SignatureScheme::RsaPkcs1(hash), MessageType::Digest)
            | (SignatureScheme::Ecdsa(hash), MessageType::Digest) => {
                (Message::Digest(bytes), Some(hash.digest_len()))
            }
            (SignatureScheme::Ed25519ph, MessageType::Digest)
            | (SignatureScheme::MlDsa, MessageType::ExternalMu) => {
                let message = match form {
                    MessageType::Digest => Message::Digest(bytes),
                    _ => Message::ExternalMu(bytes),
                };
                (message, Some(HashKind::Sha512.digest_len()))
            }
            _ => return Err(self.refuses(form)),
        };
        if len.is_none_or(|len| len == bytes.len()) {
            Ok(message)
        } else {
            let problem = format!("Digest is invalid length for algorithm {self}.");
            Err(KeystoreError::Validation(problem))
        }
    }

    fn refuses(self, form: MessageType) -> KeystoreError {
        let problem = format!("MessageType {form} is not valid for algorithm {self}.");
        KeystoreError::Validation(problem)
    }
}

impl MacAlgorithm {
    /// Its hash function.
    pub(in crate::keystore) const fn hash(self) -> HashKind {
        match self {
            Self::HmacSha224 => HashKind::Sha224,
            Self::HmacSha256 => HashKind::Sha256,
            Self::HmacSha384 => HashKind::Sha384,
            Self::HmacSha512 => HashKind::Sha512,
        }
    }
}

/// Does the key's usage allow the operation?
/// Errors: `InvalidKeyUsage`, in AWS's words.
pub(in crate::keystore) fn check_usage(
    action: Action,
    key: KeyId,
    record: &KeyRecord,
) -> Result<(), KeystoreError> {
    let (needed, name) = match action {
        Action::ReEncryptFrom | Action::ReEncryptTo => (KeyUsage::EncryptDecrypt, "ReEncrypt"),
        Action::Encrypt
        | Action::Decrypt
        | Action::GenerateDataKey
        | Action::GenerateDataKeyWithoutPlaintext
        | Action::GenerateDataKeyPair
        | Action::GenerateDataKeyPairWithoutPlaintext => {
            (KeyUsage::EncryptDecrypt, action.as_str())
        }
        Action::Sign | Action::Verify => (KeyUsage::SignVerify, action.as_str()),
        Action::GenerateMac | Action::VerifyMac => (KeyUsage::GenerateVerifyMac, action.as_str()),
        Action::DeriveSharedSecret => (KeyUsage::KeyAgreement, action.as_str()),
        _ => return Ok(()),
    };
    if record.usage == needed {
        return Ok(());
    }
    let (arn, usage) = (KeyArn(key), record.usage);
    let problem = format!("{arn} key usage is {usage} which is not valid for {name}.");
    Err(KeystoreError::InvalidKeyUsage(problem))
}

/// Does the algorithm, which is one of `known` for the key's kind, go with the key?
/// Errors: `InvalidKeyUsage`, in AWS's words.
pub(in crate::keystore) fn check_algorithm<A: Copy + PartialEq + std::fmt::Display>(
    algorithm: A,
    known: &[A],
    spec: KeySpec,
) -> Result<(), KeystoreError> {
    if known.contains(&algorithm) { Ok(()) } else { Err(incompatible(algorithm, spec)) }
}

/// The refusal of an algorithm by a kind of key, in AWS's words.
pub(in crate::keystore) fn incompatible(
    algorithm: impl std::fmt::Display,
    spec: KeySpec,
) -> KeystoreError {
    let problem = format!("Algorithm {algorithm} is incompatible with key spec {spec}.");
    KeystoreError::InvalidKeyUsage(problem)
}

/// Errors: `InvalidKeyUsage` for a key that makes no ciphertexts or data keys of the symmetric
/// algorithm, in AWS's words.
pub(in crate::keystore) fn check_symmetric(
    action: Action,
    spec: KeySpec,
) -> Result<(), KeystoreError> {
    match (spec, action) {
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

/// May a plaintext, or a message, have the length of this one?
/// Errors: `Validation`.
pub(in crate::keystore) fn check_len(plaintext: &[u8]) -> Result<(), KeystoreError> {
    let len = plaintext.len();
    if (1..=MAX_PLAINTEXT).contains(&len) {
        return Ok(());
    }
    let problem = format!("a plaintext has 1 to {MAX_PLAINTEXT} bytes, not {len}");
    Err(KeystoreError::Validation(problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which form of message each algorithm takes, with the length that it demands.
    #[test]
    fn every_algorithm_takes_its_forms_and_lengths() {
        use MessageType::{Digest, ExternalMu, Raw};
        for algorithm in SigningAlgorithm::ALL {
            let digest = match algorithm.as_str() {
                "ED25519_SHA_512" | "ML_DSA_SHAKE_256" => None,
                name if name.ends_with("256") => Some(32),
                name if name.ends_with("384") => Some(48),
                _ => Some(64),
            };
            let mu = (algorithm.as_str() == "ML_DSA_SHAKE_256").then_some(64);
            let raw = algorithm.as_str() != "ED25519_PH_SHA_512";
            for len in [1, 31, 32, 48, 64, 65, 4096] {
                let bytes = vec![0; len];
                let takes = |form| algorithm.message(form, &bytes).is_ok();
                assert_eq!(takes(Raw), raw, "{algorithm} {len}");
                assert_eq!(takes(Digest), digest == Some(len), "{algorithm} {len}");
                assert_eq!(takes(ExternalMu), mu == Some(len), "{algorithm} {len}");
            }
        }
    }

    #[test]
    fn the_words_of_refusals_are_those_of_aws() {
        let words = |error: KeystoreError| (error.aws_name(), error.to_string());
        let digest = SigningAlgorithm::EcdsaSha256.message(MessageType::Digest, &[0; 31]);
        assert_eq!(
            words(digest.unwrap_err()),
            (
                "ValidationException",
                "Digest is invalid length for algorithm ECDSA_SHA_256.".to_owned()
            )
        );
        let long = EncryptionAlgorithm::RsaesOaepSha256.check_len(KeySpec::Rsa2048, 191);
        assert_eq!(
            words(long.unwrap_err()),
            (
                "ValidationException",
                "Algorithm RSAES_OAEP_SHA_256 and key spec RSA_2048 cannot encrypt data larger \
                 than 190 bytes."
                    .to_owned()
            )
        );
        assert_eq!(
            words(incompatible(MacAlgorithm::HmacSha512, KeySpec::Hmac256)),
            (
                "InvalidKeyUsageException",
                "Algorithm HMAC_SHA_512 is incompatible with key spec HMAC_256.".to_owned()
            )
        );
    }
}
