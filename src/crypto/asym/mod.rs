//! Asymmetric keys of every kind behind two types, [`PrivateKey`] and [`PublicKey`].
//!
//! A private key is generated or read from PKCS #8, and wiped when dropped. What it cannot do
//! (an RSA key that derives a shared secret, an Ed25519 key that gets a digest) is refused with
//! `NotForKey`; a failed decryption or verification is `NotAuthentic` and says nothing more.
//! DER, signatures, ciphertexts and public keys may come from an enemy: none makes this panic.
//!
//! RSA private operations are blinded. The only RSA encryption is OAEP, and its failures cannot
//! be told apart, neither from each other nor from a ciphertext of the wrong length.

mod ec;
mod ed25519;
mod mldsa;
mod rsa;

use std::fmt;

use zeroize::Zeroizing;

use self::ec::{EcPrivate, EcPublic};
use self::mldsa::{MlDsaPrivate, MlDsaPublic};
use self::rsa::{RsaPrivate, RsaPublic};
use super::CryptoError;
use super::digest::HashKind;
use super::ed25519::{PublicKey as EdPublic, SigningKey as EdPrivate};

/// The kind and size of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// NIST P-256.
    P256,
    /// NIST P-384.
    P384,
    /// NIST P-521.
    P521,
    /// SEC secp256k1.
    Secp256k1,
    /// Edwards25519.
    Ed25519,
    /// ML-DSA-44.
    MlDsa44,
    /// ML-DSA-65.
    MlDsa65,
    /// ML-DSA-87.
    MlDsa87,
}

impl KeyKind {
    /// The length of an RSA key's modulus in bytes, which is that of its ciphertexts too; `None`
    /// for other kinds.
    pub const fn modulus_len(self) -> Option<usize> {
        match self {
            Self::Rsa2048 => Some(256),
            Self::Rsa3072 => Some(384),
            Self::Rsa4096 => Some(512),
            _ => None,
        }
    }
}

/// How a message is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PSS; MGF1 uses the same hash function, and the salt is as long as a digest.
    RsaPss(HashKind),
    /// RSASSA-PKCS1-v1_5.
    RsaPkcs1(HashKind),
    /// ECDSA; signatures are DER.
    Ecdsa(HashKind),
    /// Ed25519 (PureEdDSA).
    Ed25519,
    /// Ed25519ph, with an empty context: SHA-512 of what is given is signed.
    Ed25519ph,
    /// ML-DSA (hedged), with an empty context.
    MlDsa,
}

/// What is to be signed, and how much of the work is done already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The message itself.
    Raw(&'a [u8]),
    /// Its digest, for the RSA schemes and ECDSA; for Ed25519ph, the digest that it hashes again.
    Digest(&'a [u8]),
    /// The 64-byte representative mu of FIPS 204, for ML-DSA.
    ExternalMu(&'a [u8]),
}

impl Message<'_> {
    /// The digest for a scheme that signs digests.
    /// Errors: `DigestLength`, `NotForKey` for a representative of ML-DSA.
    fn digest(&self, hash: HashKind) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::Raw(message) => Ok(hash.digest(message)),
            Self::Digest(digest) if digest.len() == hash.digest_len() => Ok(digest.to_vec()),
            Self::Digest(_) => Err(CryptoError::DigestLength),
            Self::ExternalMu(_) => Err(CryptoError::NotForKey),
        }
    }
}

/// A private key, wiped when dropped. `Debug` prints its kind.
pub struct PrivateKey(Private);

enum Private {
    Rsa(RsaPrivate),
    Ec(EcPrivate),
    Ed25519(EdPrivate),
    MlDsa(MlDsaPrivate),
}

impl PrivateKey {
    /// A new key from kernel randomness. RSA searches for primes: up to some seconds.
    /// Errors: `Random`.
    pub fn generate(kind: KeyKind) -> Result<Self, CryptoError> {
        Ok(Self(match family(kind) {
            Family::Rsa => Private::Rsa(RsaPrivate::generate(kind)?),
            Family::Ec => Private::Ec(EcPrivate::generate(kind)?),
            Family::Ed25519 => Private::Ed25519(EdPrivate::generate()?),
            Family::MlDsa => Private::MlDsa(MlDsaPrivate::generate(kind)?),
        }))
    }

    /// The key of a PKCS #8 `PrivateKeyInfo` in DER. ML-DSA keys are given by their seed.
    /// Errors: `MalformedKey` for anything that is not a sound key of exactly this kind.
    pub fn from_pkcs8(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        Ok(Self(match family(kind) {
            Family::Rsa => Private::Rsa(RsaPrivate::from_pkcs8(kind, der)?),
            Family::Ec => Private::Ec(EcPrivate::from_pkcs8(kind, der)?),
            Family::Ed25519 => Private::Ed25519(EdPrivate::from_pkcs8(der)?),
            Family::MlDsa => Private::MlDsa(MlDsaPrivate::from_pkcs8(kind, der)?),
        }))
    }

    /// The key as PKCS #8 DER.
    /// Errors: `MalformedKey` if the key cannot be written, which no sound key does.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match &self.0 {
            Private::Rsa(key) => key.to_pkcs8(),
            Private::Ec(key) => key.to_pkcs8(),
            Private::Ed25519(key) => key.to_pkcs8(),
            Private::MlDsa(key) => key.to_pkcs8(),
        }
    }

    /// What this is.
    pub fn kind(&self) -> KeyKind {
        match &self.0 {
            Private::Rsa(key) => key.kind(),
            Private::Ec(key) => key.kind(),
            Private::Ed25519(_) => KeyKind::Ed25519,
            Private::MlDsa(key) => key.kind(),
        }
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(match &self.0 {
            Private::Rsa(key) => Public::Rsa(key.public()),
            Private::Ec(key) => Public::Ec(key.public()),
            Private::Ed25519(key) => Public::Ed25519(key.public()),
            Private::MlDsa(key) => Public::MlDsa(key.public()),
        })
    }

    /// A signature of `message`.
    /// Errors: `NotForKey`, `DigestLength`, `Random`.
    pub fn sign(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        match &self.0 {
            Private::Rsa(key) => key.sign(scheme, message),
            Private::Ec(key) => key.sign(scheme, message),
            Private::Ed25519(key) => ed25519::sign(key, scheme, message),
            Private::MlDsa(key) => key.sign(scheme, message),
        }
    }

    /// The plaintext of an RSAES-OAEP ciphertext with an empty label.
    /// Errors: `NotAuthentic` without detail, `NotForKey`, `Random`.
    pub fn decrypt(
        &self,
        hash: HashKind,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match &self.0 {
            Private::Rsa(key) => key.decrypt(hash, ciphertext),
            _ => Err(CryptoError::NotForKey),
        }
    }

    /// The raw ECDH secret (the x coordinate) shared with the owner of `peer`, a public key as
    /// `SubjectPublicKeyInfo` in DER.
    /// Errors: `MalformedKey` if the peer's point is not on this key's curve; `NotForKey` for
    /// kinds other than the NIST curves.
    pub fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match &self.0 {
            Private::Ec(key) => key.agree(peer),
            _ => Err(CryptoError::NotForKey),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.kind())
    }
}

/// A public key.
pub struct PublicKey(Public);

enum Public {
    Rsa(RsaPublic),
    Ec(EcPublic),
    Ed25519(EdPublic),
    MlDsa(MlDsaPublic),
}

impl PublicKey {
    /// The key of a `SubjectPublicKeyInfo` in DER.
    /// Errors: `MalformedKey` for anything that is not a sound key of exactly this kind.
    pub fn from_spki(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        Ok(Self(match family(kind) {
            Family::Rsa => Public::Rsa(RsaPublic::from_spki(kind, der)?),
            Family::Ec => Public::Ec(EcPublic::from_spki(kind, der)?),
            Family::Ed25519 => Public::Ed25519(EdPublic::from_spki(der)?),
            Family::MlDsa => Public::MlDsa(MlDsaPublic::from_spki(kind, der)?),
        }))
    }

    /// The key as `SubjectPublicKeyInfo` DER.
    /// Errors: `MalformedKey` if the key cannot be written, which no sound key does.
    pub fn to_spki(&self) -> Result<Vec<u8>, CryptoError> {
        match &self.0 {
            Public::Rsa(key) => key.to_spki(),
            Public::Ec(key) => key.to_spki(),
            Public::Ed25519(key) => Ok(key.to_spki()),
            Public::MlDsa(key) => key.to_spki(),
        }
    }

    /// Checks a signature.
    /// Errors: `NotAuthentic` without detail, `NotForKey`, `DigestLength`.
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        match &self.0 {
            Public::Rsa(key) => key.verify(scheme, message, signature),
            Public::Ec(key) => key.verify(scheme, message, signature),
            Public::Ed25519(key) => ed25519::verify(key, scheme, message, signature),
            Public::MlDsa(key) => key.verify(scheme, message, signature),
        }
    }

    /// An RSAES-OAEP ciphertext with an empty label.
    /// Errors: `TooLong` above [`max_plaintext`], `NotForKey`, `Random`.
    pub fn encrypt(&self, hash: HashKind, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match &self.0 {
            Public::Rsa(key) => key.encrypt(hash, plaintext),
            _ => Err(CryptoError::NotForKey),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey")
    }
}

/// The longest plaintext that RSAES-OAEP takes under a key of this kind, in bytes; `None` where
/// the kind cannot encrypt.
/// Source: RFC 8017 §7.1.1.
pub const fn max_plaintext(kind: KeyKind, hash: HashKind) -> Option<usize> {
    match kind.modulus_len() {
        Some(modulus) => Some(modulus - 2 * hash.digest_len() - 2),
        None => None,
    }
}

enum Family {
    Rsa,
    Ec,
    Ed25519,
    MlDsa,
}

const fn family(kind: KeyKind) -> Family {
    match kind {
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 => Family::Rsa,
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 | KeyKind::Secp256k1 => Family::Ec,
        KeyKind::Ed25519 => Family::Ed25519,
        KeyKind::MlDsa44 | KeyKind::MlDsa65 | KeyKind::MlDsa87 => Family::MlDsa,
    }
}

#[cfg(test)]
mod tests;
