//! RSA: OAEP, PSS and PKCS #1 v1.5 signatures, always blinded.

use rsa::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, Pkcs1v15Sign, PrivateKey, Pss, PublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::{KeyKind, Message, SignatureScheme};
use crate::crypto::digest::HashKind;
use crate::crypto::{CryptoError, random};

/// An RSA private key with two primes; the crate wipes it.
pub(super) struct RsaPrivate {
    kind: KeyKind,
    key: PrivateKey,
}

impl RsaPrivate {
    pub(super) fn generate(kind: KeyKind) -> Result<Self, CryptoError> {
        let key = PrivateKey::new(&mut random::stream()?, modulus_bits(kind)?)
            .map_err(|_| CryptoError::Random)?;
        Ok(Self { kind, key })
    }

    pub(super) fn from_pkcs8(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        let key = PrivateKey::from_pkcs8_der(der).map_err(|_| CryptoError::MalformedKey)?;
        check_size(kind, key.as_public_key())?;
        Ok(Self { kind, key })
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let der = self.key.to_pkcs8_der().map_err(|_| CryptoError::MalformedKey)?;
        Ok(der.to_bytes())
    }

    pub(super) fn kind(&self) -> KeyKind {
        self.kind
    }

    pub(super) fn public(&self) -> RsaPublic {
        RsaPublic(self.key.to_public_key())
    }

    pub(super) fn sign(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let rng = &mut random::stream()?;
        let digest = message.digest(hash_of(scheme)?)?;
        match scheme {
            SignatureScheme::RsaPss(HashKind::Sha256) => {
                self.key.sign_with_rng(rng, Pss::<Sha256>::new(), &digest)
            }
            SignatureScheme::RsaPss(HashKind::Sha384) => {
                self.key.sign_with_rng(rng, Pss::<Sha384>::new(), &digest)
            }
            SignatureScheme::RsaPss(_) => {
                self.key.sign_with_rng(rng, Pss::<Sha512>::new(), &digest)
            }
            SignatureScheme::RsaPkcs1(hash) => self.key.sign_with_rng(rng, pkcs1(hash), &digest),
            _ => return Err(CryptoError::NotForKey),
        }
        .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn decrypt(
        &self,
        hash: HashKind,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let rng = &mut random::stream()?;
        match hash {
            HashKind::Sha1 => self.key.decrypt_blinded(rng, Oaep::<Sha1>::new(), ciphertext),
            HashKind::Sha256 => self.key.decrypt_blinded(rng, Oaep::<Sha256>::new(), ciphertext),
            _ => return Err(CryptoError::NotForKey),
        }
        .map(Zeroizing::new)
        .map_err(|_| CryptoError::NotAuthentic)
    }
}

/// An RSA public key.
pub(super) struct RsaPublic(PublicKey);

impl RsaPublic {
    pub(super) fn from_spki(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        let key = PublicKey::from_public_key_der(der).map_err(|_| CryptoError::MalformedKey)?;
        check_size(kind, &key)?;
        Ok(Self(key))
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>, CryptoError> {
        let der = self.0.to_public_key_der().map_err(|_| CryptoError::MalformedKey)?;
        Ok(der.into_vec())
    }

    /// PSS demands a salt of exactly a digest's length.
    pub(super) fn verify(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let digest = message.digest(hash_of(scheme)?)?;
        match scheme {
            SignatureScheme::RsaPss(HashKind::Sha256) => {
                self.0.verify(Pss::<Sha256>::new(), &digest, signature)
            }
            SignatureScheme::RsaPss(HashKind::Sha384) => {
                self.0.verify(Pss::<Sha384>::new(), &digest, signature)
            }
            SignatureScheme::RsaPss(_) => self.0.verify(Pss::<Sha512>::new(), &digest, signature),
            SignatureScheme::RsaPkcs1(hash) => self.0.verify(pkcs1(hash), &digest, signature),
            _ => return Err(CryptoError::NotForKey),
        }
        .map_err(|_| CryptoError::NotAuthentic)
    }

    pub(super) fn encrypt(&self, hash: HashKind, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let rng = &mut random::stream()?;
        match hash {
            HashKind::Sha1 => self.0.encrypt(rng, Oaep::<Sha1>::new(), plaintext),
            HashKind::Sha256 => self.0.encrypt(rng, Oaep::<Sha256>::new(), plaintext),
            _ => return Err(CryptoError::NotForKey),
        }
        .map_err(|_| CryptoError::TooLong)
    }
}

/// The hash function of an RSA scheme: SHA-256, SHA-384 or SHA-512.
fn hash_of(scheme: SignatureScheme) -> Result<HashKind, CryptoError> {
    match scheme {
        SignatureScheme::RsaPss(hash) | SignatureScheme::RsaPkcs1(hash)
            if !matches!(hash, HashKind::Sha1 | HashKind::Sha224) =>
        {
            Ok(hash)
        }
        _ => Err(CryptoError::NotForKey),
    }
}

fn pkcs1(hash: HashKind) -> Pkcs1v15Sign {
    match hash {
        HashKind::Sha384 => Pkcs1v15Sign::new::<Sha384>(),
        HashKind::Sha512 => Pkcs1v15Sign::new::<Sha512>(),
        _ => Pkcs1v15Sign::new::<Sha256>(),
    }
}

fn modulus_bits(kind: KeyKind) -> Result<usize, CryptoError> {
    kind.modulus_len().map(|len| len * 8).ok_or(CryptoError::NotForKey)
}

/// A key of another size is another kind of key, also where it has as many bytes.
fn check_size(kind: KeyKind, key: &PublicKey) -> Result<(), CryptoError> {
    let bits = usize::try_from(key.n().bit_width()).map_err(|_| CryptoError::MalformedKey)?;
    if bits == modulus_bits(kind)? { Ok(()) } else { Err(CryptoError::MalformedKey) }
}
