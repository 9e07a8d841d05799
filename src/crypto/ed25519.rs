//! Ed25519 keys and signatures. Checkpoints of the audit log and transfers of keys are signed by
//! derived keys; as one of the kinds of users' keys they are behind [`asym`](super::asym).

use base64ct::{Base64, Encoding};
use ed25519_dalek::pkcs8::KeypairBytes;
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use pkcs8::{DecodePrivateKey, EncodePrivateKey};
use sha2::Sha512;
use zeroize::Zeroizing;

use super::{CryptoError, Secret};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// A key that signs; the crate wipes it. Boxed, so that a move leaves no copy.
pub struct SigningKey(Box<ed25519_dalek::SigningKey>);

impl SigningKey {
    /// A new key from kernel randomness.
    /// Errors: `Random`.
    pub fn generate() -> Result<Self, CryptoError> {
        Ok(Self::from_seed(&Secret::random()?))
    }

    /// The key of a uniformly random seed. Source: RFC 8032, section 5.1.5.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(Box::new(ed25519_dalek::SigningKey::from_bytes(seed.expose())))
    }

    /// The key of a PKCS #8 `PrivateKeyInfo` in DER.
    /// Errors: `MalformedKey`.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, CryptoError> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_der(der);
        key.map(|key| Self(Box::new(key))).map_err(|_| CryptoError::MalformedKey)
    }

    /// The key as PKCS #8 DER, without the public key: the second version, which would hold it, is
    /// refused by many readers.
    /// Errors: `MalformedKey` if it cannot be written, which no key does.
    pub fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let seed = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let der = seed.to_pkcs8_der().map_err(|_| CryptoError::MalformedKey)?;
        Ok(der.to_bytes())
    }

    /// The key that checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message. Source: FIPS 186-5 §7.6.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }

    /// Signs what was hashed, by Ed25519ph with an empty context. Source: FIPS 186-5 §7.8.
    pub(super) fn sign_prehashed(&self, hash: Sha512) -> [u8; SIGNATURE_LEN] {
        let signed = self.0.sign_prehashed(hash, None);
        signed.expect("only a context can be too long").to_bytes()
    }
}

/// A key that checks signatures, by the strict rules: no key and no signature of small order, none
/// that is malleable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of a `SubjectPublicKeyInfo` in DER, which has one form. Source: RFC 8410, section 4.
    /// Errors: `MalformedKey`.
    pub fn from_spki(der: &[u8]) -> Result<Self, CryptoError> {
        let key = der.strip_prefix(SPKI_PREFIX).and_then(|key| key.try_into().ok());
        let key = key.and_then(|key| VerifyingKey::from_bytes(key).ok());
        key.map(Self).ok_or(CryptoError::MalformedKey)
    }

    /// The key as `SubjectPublicKeyInfo` in DER.
    pub fn to_spki(&self) -> Vec<u8> {
        [SPKI_PREFIX, self.0.as_bytes()].concat()
    }

    /// The key in the form that other tools read: SubjectPublicKeyInfo in PEM.
    pub fn to_pem(&self) -> String {
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", Base64::encode_string(&self.to_spki()))
    }

    /// Reads what [`PublicKey::to_pem`] writes; text around it does not matter.
    pub fn from_pem(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(PEM_BEGIN)?;
        let (body, _) = rest.split_once(PEM_END)?;
        let body: String = body.split_whitespace().collect();
        Self::from_spki(&Base64::decode_vec(&body).ok()?).ok()
    }

    /// Checks a signature.
    /// Errors: `NotAuthentic`, also for one of another length.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = read_signature(signature)?;
        self.0.verify_strict(message, &signature).map_err(|_| CryptoError::NotAuthentic)
    }

    /// Checks a signature of what was hashed, by Ed25519ph with an empty context.
    /// Errors: `NotAuthentic`.
    pub(super) fn verify_prehashed(
        &self,
        hash: Sha512,
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let signature = read_signature(signature)?;
        let verified = self.0.verify_prehashed_strict(hash, None, &signature);
        verified.map_err(|_| CryptoError::NotAuthentic)
    }
}

fn read_signature(signature: &[u8]) -> Result<Signature, CryptoError> {
    Signature::from_slice(signature).map_err(|_| CryptoError::NotAuthentic)
}

/// SubjectPublicKeyInfo up to the 32 bytes of the key.
const SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        base16ct::lower::decode_vec(text).unwrap()
    }

    fn from_seed(seed: &str) -> SigningKey {
        SigningKey::from_seed(&Secret::from_slice(&hex(seed)).unwrap())
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_agree_with_the_rfc() {
        let key = from_seed("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let signature = key.sign(&[0x72]);
        assert_eq!(signature.to_vec(), hex(expected));
        assert_eq!(key.public().verify(&[0x72], &signature), Ok(()));
        for (message, signature) in
            [(0x73, &signature[..]), (0x72, &signature[1..]), (0x72, &[0; SIGNATURE_LEN])]
        {
            let verified = key.public().verify(&[message], signature);
            assert_eq!(verified, Err(CryptoError::NotAuthentic));
        }
    }

    /// RFC 8032, section 7.3, test vector "abc": there the message is hashed once, so the pre-hash
    /// is given directly.
    #[test]
    fn prehashed_signatures_agree_with_the_rfc() {
        let key = from_seed("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42");
        let expected = "98a70222f0b8121aa9d30f813d683f809e462b469c7ff87639499bb94e6dae41\
                        31f85042463c2a355a2003d062adf5aaa10b8c61e636062aaad11c2a26083406";
        let signature = key.sign_prehashed(Sha512::new_with_prefix(b"abc"));
        assert_eq!(signature.to_vec(), hex(expected));
        let verify =
            |text| key.public().verify_prehashed(Sha512::new_with_prefix(text), &signature);
        assert_eq!(verify("abc"), Ok(()));
        assert_eq!(verify("abd"), Err(CryptoError::NotAuthentic));
    }

    /// A key of small order makes one signature good for many messages.
    #[test]
    fn signatures_by_a_key_of_small_order_are_refused() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let public = PublicKey::from_spki(&[SPKI_PREFIX, &neutral].concat()).unwrap();
        let signature = [neutral, [0; 32]].concat();
        assert_eq!(public.verify(b"anything", &signature), Err(CryptoError::NotAuthentic));
        let hash = Sha512::new_with_prefix(b"anything");
        assert_eq!(public.verify_prehashed(hash, &signature), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn a_public_key_reads_back_and_nothing_else_does() {
        let public = SigningKey::generate().unwrap().public();
        let pem = public.to_pem();
        assert_eq!(PublicKey::from_pem(&format!("a remark\n{pem}")), Some(public));
        for text in ["", PEM_BEGIN, &pem.replace("MCow", "MCox"), &pem.replace("END", "XXX")] {
            assert_eq!(PublicKey::from_pem(text), None, "{text}");
        }
        let spki = public.to_spki();
        assert_eq!(PublicKey::from_spki(&spki), Ok(public));
        let longer = [&spki[..], &[0]].concat();
        for der in [&spki[1..], &spki[..spki.len() - 1], &longer] {
            assert_eq!(PublicKey::from_spki(der), Err(CryptoError::MalformedKey));
        }
    }
}
