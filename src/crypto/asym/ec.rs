//! ECDSA and ECDH on NIST's curves, ECDSA on secp256k1.

use k256::elliptic_curve::Generate;
use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use zeroize::Zeroizing;

use super::{KeyKind, Message, SignatureScheme};
use crate::crypto::digest::HashKind;
use crate::crypto::{CryptoError, random};

/// A private scalar; the crates wipe it.
pub(super) enum EcPrivate {
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
    Secp256k1(k256::SecretKey),
}

/// A point other than the identity, on its curve.
pub(super) enum EcPublic {
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    P521(p521::PublicKey),
    Secp256k1(k256::PublicKey),
}

/// Evaluates an expression for the curve of a key, with `$curve` naming the curve's crate.
macro_rules! on_curve {
    ($type:ident, $value:expr, $curve:ident, $key:ident => $body:expr) => {
        match $value {
            $type::P256($key) => {
                use p256 as $curve;
                $body
            }
            $type::P384($key) => {
                use p384 as $curve;
                $body
            }
            $type::P521($key) => {
                use p521 as $curve;
                $body
            }
            $type::Secp256k1($key) => {
                use k256 as $curve;
                $body
            }
        }
    };
}

/// Builds the variant for a kind of key, with `$curve` naming the curve's crate.
macro_rules! for_kind {
    ($type:ident, $kind:expr, $curve:ident => $body:expr) => {
        match $kind {
            KeyKind::P256 => $type::P256({
                use p256 as $curve;
                $body
            }),
            KeyKind::P384 => $type::P384({
                use p384 as $curve;
                $body
            }),
            KeyKind::P521 => $type::P521({
                use p521 as $curve;
                $body
            }),
            KeyKind::Secp256k1 => $type::Secp256k1({
                use k256 as $curve;
                $body
            }),
            _ => return Err(CryptoError::NotForKey),
        }
    };
}

impl EcPrivate {
    pub(super) fn generate(kind: KeyKind) -> Result<Self, CryptoError> {
        let rng = &mut random::stream()?;
        Ok(for_kind!(Self, kind, curve => curve::SecretKey::generate_from_rng(rng)))
    }

    pub(super) fn from_pkcs8(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        Ok(for_kind!(Self, kind, curve => {
            curve::SecretKey::from_pkcs8_der(der).map_err(|_| CryptoError::MalformedKey)?
        }))
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        match self {
            Self::P256(key) => key.to_pkcs8_der(),
            Self::P384(key) => key.to_pkcs8_der(),
            Self::P521(key) => key.to_pkcs8_der(),
            Self::Secp256k1(key) => key.to_pkcs8_der(),
        }
        .map(|der| der.to_bytes())
        .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn kind(&self) -> KeyKind {
        match self {
            Self::P256(_) => KeyKind::P256,
            Self::P384(_) => KeyKind::P384,
            Self::P521(_) => KeyKind::P521,
            Self::Secp256k1(_) => KeyKind::Secp256k1,
        }
    }

    pub(super) fn public(&self) -> EcPublic {
        match self {
            Self::P256(key) => EcPublic::P256(key.public_key()),
            Self::P384(key) => EcPublic::P384(key.public_key()),
            Self::P521(key) => EcPublic::P521(key.public_key()),
            Self::Secp256k1(key) => EcPublic::Secp256k1(key.public_key()),
        }
    }

    /// Source: FIPS 186-5 §6.4, deterministic nonces of RFC 6979.
    pub(super) fn sign(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let digest = message.digest(hash_for(self.kind(), scheme)?)?;
        on_curve!(Self, self, curve, key => {
            let key = curve::ecdsa::SigningKey::from(key);
            let signature: curve::ecdsa::DerSignature =
                key.sign_prehash(&digest).map_err(|_| CryptoError::MalformedKey)?;
            Ok(signature.as_bytes().to_vec())
        })
    }

    /// Source: SP 800-56A §5.7.1.2.
    pub(super) fn agree(&self, peer: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let shared = match (self, EcPublic::from_spki(self.kind(), peer)?) {
            (Self::P256(own), EcPublic::P256(peer)) => {
                own.diffie_hellman(&peer).raw_secret_bytes().to_vec()
            }
            (Self::P384(own), EcPublic::P384(peer)) => {
                own.diffie_hellman(&peer).raw_secret_bytes().to_vec()
            }
            (Self::P521(own), EcPublic::P521(peer)) => {
                own.diffie_hellman(&peer).raw_secret_bytes().to_vec()
            }
            _ => return Err(CryptoError::NotForKey),
        };
        Ok(Zeroizing::new(shared))
    }
}

impl EcPublic {
    pub(super) fn from_spki(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        Ok(for_kind!(Self, kind, curve => {
            curve::PublicKey::from_public_key_der(der).map_err(|_| CryptoError::MalformedKey)?
        }))
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>, CryptoError> {
        match self {
            Self::P256(key) => key.to_public_key_der(),
            Self::P384(key) => key.to_public_key_der(),
            Self::P521(key) => key.to_public_key_der(),
            Self::Secp256k1(key) => key.to_public_key_der(),
        }
        .map(|der| der.into_vec())
        .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn verify(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let digest = message.digest(hash_for(self.kind(), scheme)?)?;
        on_curve!(Self, self, curve, key => {
            let key = curve::ecdsa::VerifyingKey::from(key);
            let signature = curve::ecdsa::Signature::from_der(signature)
                .map_err(|_| CryptoError::NotAuthentic)?;
            // Both s and -s are valid; the crate of secp256k1 takes the lower one only.
            key.verify_prehash(&digest, &signature.normalize_s())
                .map_err(|_| CryptoError::NotAuthentic)
        })
    }

    fn kind(&self) -> KeyKind {
        match self {
            Self::P256(_) => KeyKind::P256,
            Self::P384(_) => KeyKind::P384,
            Self::P521(_) => KeyKind::P521,
            Self::Secp256k1(_) => KeyKind::Secp256k1,
        }
    }
}

/// The one hash function that goes with each curve.
fn hash_for(kind: KeyKind, scheme: SignatureScheme) -> Result<HashKind, CryptoError> {
    let hash = match kind {
        KeyKind::P384 => HashKind::Sha384,
        KeyKind::P521 => HashKind::Sha512,
        _ => HashKind::Sha256,
    };
    if scheme == SignatureScheme::Ecdsa(hash) { Ok(hash) } else { Err(CryptoError::NotForKey) }
}
