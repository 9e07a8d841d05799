//! Ed25519 and Ed25519ph.

use ed25519_dalek::pkcs8::KeypairBytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

use super::{Message, SignatureScheme};
use crate::crypto::digest::HashKind;
use crate::crypto::{CryptoError, random};

/// A private key; the crate wipes it. Boxed, so that a move leaves no copy.
pub(super) struct EdPrivate(Box<SigningKey>);

impl EdPrivate {
    pub(super) fn generate() -> Result<Self, CryptoError> {
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(&mut *seed)?;
        Ok(Self(Box::new(SigningKey::from_bytes(&seed))))
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, CryptoError> {
        let key = SigningKey::from_pkcs8_der(der).map_err(|_| CryptoError::MalformedKey)?;
        Ok(Self(Box::new(key)))
    }

    /// Without the public key: the second version of PKCS #8, which would hold it, is refused by
    /// many readers.
    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let seed = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let der = seed.to_pkcs8_der().map_err(|_| CryptoError::MalformedKey)?;
        Ok(der.to_bytes())
    }

    pub(super) fn public(&self) -> EdPublic {
        EdPublic(self.0.verifying_key())
    }

    /// Source: FIPS 186-5 §7.6 and §7.8.
    pub(super) fn sign(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let signature = match Input::new(scheme, message)? {
            Input::Pure(message) => self.0.try_sign(message),
            Input::Hashed(hash) => self.0.sign_prehashed(hash, None),
        };
        Ok(signature.map_err(|_| CryptoError::MalformedKey)?.to_bytes().to_vec())
    }
}

/// A public key.
pub(super) struct EdPublic(VerifyingKey);

impl EdPublic {
    pub(super) fn from_spki(der: &[u8]) -> Result<Self, CryptoError> {
        VerifyingKey::from_public_key_der(der).map(Self).map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>, CryptoError> {
        let der = self.0.to_public_key_der().map_err(|_| CryptoError::MalformedKey)?;
        Ok(der.into_vec())
    }

    /// Strict: neither weak keys nor malleable signatures pass.
    pub(super) fn verify(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let input = Input::new(scheme, message)?;
        let signature = Signature::from_slice(signature).map_err(|_| CryptoError::NotAuthentic)?;
        match input {
            Input::Pure(message) => self.0.verify_strict(message, &signature),
            Input::Hashed(hash) => self.0.verify_prehashed_strict(hash, None, &signature),
        }
        .map_err(|_| CryptoError::NotAuthentic)
    }
}

/// What goes into the scheme. Ed25519 takes a message; Ed25519ph takes a SHA-512 digest and hashes
/// it again, as AWS KMS does.
enum Input<'a> {
    Pure(&'a [u8]),
    Hashed(Sha512),
}

impl<'a> Input<'a> {
    fn new(scheme: SignatureScheme, message: Message<'a>) -> Result<Self, CryptoError> {
        match (scheme, message) {
            (SignatureScheme::Ed25519, Message::Raw(message)) => Ok(Self::Pure(message)),
            (SignatureScheme::Ed25519ph, Message::Digest(digest)) => {
                if digest.len() != HashKind::Sha512.digest_len() {
                    return Err(CryptoError::DigestLength);
                }
                Ok(Self::Hashed(Sha512::new_with_prefix(digest)))
            }
            _ => Err(CryptoError::NotForKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.3, test vector "abc": there the message is hashed once, so the pre-hash is
    /// given directly.
    #[test]
    fn ed25519ph_agrees_with_its_rfc() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
            digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
        };
        let seed = hex("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42");
        let key = SigningKey::from_bytes(&seed.try_into().unwrap());
        let signature = key.sign_prehashed(Sha512::new_with_prefix(b"abc"), None).unwrap();
        let expected = "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41\
                        31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406";
        assert_eq!(signature.to_bytes().to_vec(), hex(expected));
    }

    /// What is signed as a digest is the message of Ed25519ph: it is hashed once more.
    #[test]
    fn ed25519ph_hashes_the_digest_again() {
        let key = EdPrivate::generate().unwrap();
        let digest = [7; 64];
        let signature = key.sign(SignatureScheme::Ed25519ph, Message::Digest(&digest)).unwrap();
        let signature = Signature::from_slice(&signature).unwrap();
        let again = Sha512::new_with_prefix(digest);
        key.0.verifying_key().verify_prehashed_strict(again, None, &signature).unwrap();
    }
}
