//! HPKE in base mode: a message for the owner of a key pair, and for nobody else.
//!
//! The suite is DHKEM(P-521, HKDF-SHA512), HKDF-SHA512, AES-256-GCM; one message goes under each
//! encapsulated key. Who sent it is not authenticated. Source: RFC 9180.

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha512;
use hpke::kem::DhP521HkdfSha512;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use super::{CryptoError, Secret, random};

type Suite = DhP521HkdfSha512;

/// Length of a private key, and of what it is derived from, in bytes.
pub const PRIVATE_LEN: usize = 66;

/// The private half, serialized. Source: RFC 9180 section 7.1.2.
#[derive(Debug)]
pub struct PrivateKey(Secret<PRIVATE_LEN>);

/// What [`seal`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encapsulated key (`enc`): 133 bytes.
    pub encapsulated: Vec<u8>,
    /// The ciphertext and its tag: 16 bytes more than the plaintext.
    pub ciphertext: Vec<u8>,
}

impl PrivateKey {
    /// A fresh key.
    /// Errors: `Random`.
    pub fn generate() -> Result<Self, CryptoError> {
        let seed = Secret::<PRIVATE_LEN>::random()?;
        let (private, _) = Suite::derive_keypair(seed.expose());
        Ok(Self(Secret::filled(|out| private.write_exact(out))))
    }

    /// The key with these bytes.
    /// Errors: `MalformedKey`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        let key = Self(Secret::from_slice(bytes).ok_or(CryptoError::MalformedKey)?);
        key.parsed().map(|_| key)
    }

    /// Its bytes.
    pub fn expose(&self) -> &[u8; PRIVATE_LEN] {
        self.0.expose()
    }

    /// The public half: an uncompressed point, 133 bytes.
    /// Errors: `MalformedKey`.
    pub fn public(&self) -> Result<Vec<u8>, CryptoError> {
        Ok(Suite::sk_to_pk(&self.parsed()?).to_bytes().to_vec())
    }

    /// Opens what [`seal`] made for this key with the same `info` and `aad`.
    /// Errors: `NotAuthentic`.
    pub fn open(
        &self,
        sealed: &Sealed,
        info: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(&sealed.encapsulated)
            .map_err(|_| CryptoError::NotAuthentic)?;
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha512, Suite>(
            &OpModeR::Base,
            &self.parsed()?,
            &encapsulated,
            info,
            &sealed.ciphertext,
            aad,
        );
        opened.map(Zeroizing::new).map_err(|_| CryptoError::NotAuthentic)
    }

    fn parsed(&self) -> Result<<Suite as Kem>::PrivateKey, CryptoError> {
        Deserializable::from_bytes(self.expose()).map_err(|_| CryptoError::MalformedKey)
    }
}

/// Seals `plaintext` for the owner of `public`. `info` says what it is for, and `aad` goes along.
/// Errors: `MalformedKey`, `Random`.
pub fn seal(
    public: &[u8],
    info: &[u8],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, CryptoError> {
    let public =
        <Suite as Kem>::PublicKey::from_bytes(public).map_err(|_| CryptoError::MalformedKey)?;
    let sealed = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha512, Suite>(
        &OpModeS::Base,
        &public,
        info,
        plaintext,
        aad,
        &mut random::stream()?,
    );
    let (encapsulated, ciphertext) = sealed.map_err(|_| CryptoError::MalformedKey)?;
    Ok(Sealed { encapsulated: encapsulated.to_bytes().to_vec(), ciphertext })
}
