//! Ed25519 signatures by keys that are derived, never stored.

use base64ct::{Base64, Encoding};
use ed25519_dalek::{Signer, VerifyingKey};

use super::{CryptoError, Secret};

/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;

/// A key that signs. Wipes itself when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a uniformly random seed. Source: RFC 8032, section 5.1.5.
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    /// The key that checks its signatures.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(message).to_bytes()
    }
}

/// A key that checks signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key in the form that other tools read: SubjectPublicKeyInfo in PEM.
    /// Source: RFC 8410, section 4.
    pub fn to_pem(&self) -> String {
        let der = [SPKI_PREFIX, self.0.as_bytes()].concat();
        format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", Base64::encode_string(&der))
    }

    /// Reads what [`PublicKey::to_pem`] writes; text around it does not matter.
    pub fn from_pem(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(PEM_BEGIN)?;
        let (body, _) = rest.split_once(PEM_END)?;
        let body: String = body.split_whitespace().collect();
        let der = Base64::decode_vec(&body).ok()?;
        let key = der.strip_prefix(SPKI_PREFIX)?.try_into().ok()?;
        VerifyingKey::from_bytes(key).ok().map(Self)
    }

    /// Checks a signature, by the strict rules: no key and no signature of small order.
    /// Errors: `NotAuthentic`.
    pub fn verify(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), CryptoError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).map_err(|_| CryptoError::NotAuthentic)
    }
}

/// SubjectPublicKeyInfo up to the 32 bytes of the key.
const SPKI_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn signatures_agree_with_the_rfc() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let expected = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
        let bytes: Vec<u8> = (0..64)
            .step_by(2)
            .map(|at| u8::from_str_radix(&seed[at..at + 2], 16).unwrap())
            .collect();
        let key = SigningKey::from_seed(&Secret::from_slice(&bytes).unwrap());
        let signature = key.sign(&[0x72]);
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(key.public().verify(&[0x72], &signature), Ok(()));
        assert_eq!(key.public().verify(&[0x73], &signature), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn a_public_key_reads_back_from_its_pem_and_nothing_else_does() {
        let public = SigningKey::from_seed(&Secret::random().unwrap()).public();
        let pem = public.to_pem();
        assert_eq!(PublicKey::from_pem(&format!("a remark\n{pem}")), Some(public));
        for text in ["", PEM_BEGIN, &pem.replace("MCow", "MCox"), &pem.replace("END", "XXX")] {
            assert_eq!(PublicKey::from_pem(text), None, "{text}");
        }
    }
}
