//! ML-DSA (FIPS 204), hedged, with an empty context.

use ml_dsa::{MlDsa44, MlDsa65, MlDsa87, Signature, SigningKey, VerifyingKey};
use pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey};
use zeroize::Zeroizing;

use super::{KeyKind, Message, SignatureScheme};
use crate::crypto::{CryptoError, random};

/// A private key with its seed, wiped by the crate. Boxed: expanded, a key has tens of kilobytes.
pub(super) enum MlDsaPrivate {
    Small(Box<SigningKey<MlDsa44>>),
    Medium(Box<SigningKey<MlDsa65>>),
    Large(Box<SigningKey<MlDsa87>>),
}

/// A public key, expanded.
pub(super) enum MlDsaPublic {
    Small(Box<VerifyingKey<MlDsa44>>),
    Medium(Box<VerifyingKey<MlDsa65>>),
    Large(Box<VerifyingKey<MlDsa87>>),
}

/// Evaluates an expression for a key of any size.
macro_rules! any_size {
    ($type:ident, $value:expr, $key:ident => $body:expr) => {
        match $value {
            $type::Small($key) => $body,
            $type::Medium($key) => $body,
            $type::Large($key) => $body,
        }
    };
}

impl MlDsaPrivate {
    pub(super) fn generate(kind: KeyKind) -> Result<Self, CryptoError> {
        let mut seed = Zeroizing::new([0; 32]);
        random::fill(&mut *seed)?;
        let seed = Zeroizing::new((*seed).into());
        Ok(match kind {
            KeyKind::MlDsa44 => Self::Small(Box::new(SigningKey::from_seed(&seed))),
            KeyKind::MlDsa65 => Self::Medium(Box::new(SigningKey::from_seed(&seed))),
            KeyKind::MlDsa87 => Self::Large(Box::new(SigningKey::from_seed(&seed))),
            _ => return Err(CryptoError::NotForKey),
        })
    }

    pub(super) fn from_pkcs8(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        match kind {
            KeyKind::MlDsa44 => SigningKey::from_pkcs8_der(der).map(|key| Self::Small(key.into())),
            KeyKind::MlDsa65 => SigningKey::from_pkcs8_der(der).map(|key| Self::Medium(key.into())),
            KeyKind::MlDsa87 => SigningKey::from_pkcs8_der(der).map(|key| Self::Large(key.into())),
            _ => return Err(CryptoError::NotForKey),
        }
        .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        any_size!(Self, self, key => key.to_pkcs8_der())
            .map(|der| der.to_bytes())
            .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn kind(&self) -> KeyKind {
        match self {
            Self::Small(_) => KeyKind::MlDsa44,
            Self::Medium(_) => KeyKind::MlDsa65,
            Self::Large(_) => KeyKind::MlDsa87,
        }
    }

    pub(super) fn public(&self) -> MlDsaPublic {
        match self {
            Self::Small(key) => MlDsaPublic::Small(Box::new(key.expanded_key().verifying_key())),
            Self::Medium(key) => MlDsaPublic::Medium(Box::new(key.expanded_key().verifying_key())),
            Self::Large(key) => MlDsaPublic::Large(Box::new(key.expanded_key().verifying_key())),
        }
    }

    pub(super) fn sign(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
    ) -> Result<Vec<u8>, CryptoError> {
        let input = Input::new(scheme, message)?;
        let rng = &mut random::stream()?;
        any_size!(Self, self, key => {
            let key = key.expanded_key();
            match input {
                Input::Message(message) => key.sign_randomized(message, &[], rng),
                Input::Mu(mu) => key.sign_mu_randomized(&mu.into(), rng),
            }
            .map(|signature| signature.encode().to_vec())
            .map_err(|_| CryptoError::Random)
        })
    }
}

impl MlDsaPublic {
    pub(super) fn from_spki(kind: KeyKind, der: &[u8]) -> Result<Self, CryptoError> {
        match kind {
            KeyKind::MlDsa44 => {
                VerifyingKey::from_public_key_der(der).map(|key| Self::Small(Box::new(key)))
            }
            KeyKind::MlDsa65 => {
                VerifyingKey::from_public_key_der(der).map(|key| Self::Medium(Box::new(key)))
            }
            KeyKind::MlDsa87 => {
                VerifyingKey::from_public_key_der(der).map(|key| Self::Large(Box::new(key)))
            }
            _ => return Err(CryptoError::NotForKey),
        }
        .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn to_spki(&self) -> Result<Vec<u8>, CryptoError> {
        any_size!(Self, self, key => key.to_public_key_der())
            .map(|der| der.into_vec())
            .map_err(|_| CryptoError::MalformedKey)
    }

    pub(super) fn verify(
        &self,
        scheme: SignatureScheme,
        message: Message<'_>,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let input = Input::new(scheme, message)?;
        let valid = any_size!(Self, self, key => {
            let signature =
                Signature::try_from(signature).map_err(|_| CryptoError::NotAuthentic)?;
            match input {
                Input::Message(message) => key.verify_with_context(message, &[], &signature),
                Input::Mu(mu) => key.verify_mu(&mu.into(), &signature),
            }
        });
        if valid { Ok(()) } else { Err(CryptoError::NotAuthentic) }
    }
}

/// What goes into the scheme.
enum Input<'a> {
    Message(&'a [u8]),
    Mu([u8; 64]),
}

impl<'a> Input<'a> {
    fn new(scheme: SignatureScheme, message: Message<'a>) -> Result<Self, CryptoError> {
        match (scheme, message) {
            (SignatureScheme::MlDsa, Message::Raw(message)) => Ok(Self::Message(message)),
            (SignatureScheme::MlDsa, Message::ExternalMu(mu)) => {
                Ok(Self::Mu(mu.try_into().map_err(|_| CryptoError::DigestLength)?))
            }
            _ => Err(CryptoError::NotForKey),
        }
    }
}
