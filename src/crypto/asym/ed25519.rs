//! Ed25519 and Ed25519ph as signature schemes of users' keys.

use sha2::{Digest, Sha512};

use super::{Message, SignatureScheme};
use crate::crypto::CryptoError;
use crate::crypto::digest::HashKind;
use crate::crypto::ed25519::{PublicKey, SigningKey};

/// Errors: `NotForKey`, `DigestLength`.
pub(super) fn sign(
    key: &SigningKey,
    scheme: SignatureScheme,
    message: Message<'_>,
) -> Result<Vec<u8>, CryptoError> {
    let signature = match Input::new(scheme, message)? {
        Input::Pure(message) => key.sign(message),
        Input::Hashed(hash) => key.sign_prehashed(hash),
    };
    Ok(signature.to_vec())
}

/// Errors: `NotAuthentic`, `NotForKey`, `DigestLength`.
pub(super) fn verify(
    key: &PublicKey,
    scheme: SignatureScheme,
    message: Message<'_>,
    signature: &[u8],
) -> Result<(), CryptoError> {
    match Input::new(scheme, message)? {
        Input::Pure(message) => key.verify(message, signature),
        Input::Hashed(hash) => key.verify_prehashed(hash, signature),
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

    /// What is signed as a digest is the message of Ed25519ph: it is hashed once more.
    #[test]
    fn ed25519ph_hashes_the_digest_again() {
        let key = SigningKey::generate().unwrap();
        let digest = [7; 64];
        let scheme = SignatureScheme::Ed25519ph;
        let signature = sign(&key, scheme, Message::Digest(&digest)).unwrap();
        let again = Sha512::new_with_prefix(digest);
        key.public().verify_prehashed(again, &signature).unwrap();
    }
}
