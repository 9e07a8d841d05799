//! HMAC with a hash function chosen at run time.
//!
//! Source: RFC 2104, RFC 4231. The MACs that the keystore itself rests on are in
//! [`hash`](super::hash); these belong to users' HMAC keys.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::CryptoError;
use super::digest::HashKind;

/// The MAC of `message`, as long as the digest of `hash`.
/// Errors: `NotForKey` for SHA-1, which no HMAC key here uses.
pub fn generate(hash: HashKind, key: &[u8], message: &[u8]) -> Result<Vec<u8>, CryptoError> {
    match hash {
        HashKind::Sha1 => Err(CryptoError::NotForKey),
        HashKind::Sha224 => {
            Ok(keyed::<Hmac<Sha224>>(key, message).finalize().into_bytes().to_vec())
        }
        HashKind::Sha256 => {
            Ok(keyed::<Hmac<Sha256>>(key, message).finalize().into_bytes().to_vec())
        }
        HashKind::Sha384 => {
            Ok(keyed::<Hmac<Sha384>>(key, message).finalize().into_bytes().to_vec())
        }
        HashKind::Sha512 => {
            Ok(keyed::<Hmac<Sha512>>(key, message).finalize().into_bytes().to_vec())
        }
    }
}

/// Checks a whole MAC in constant time; a shortened one is refused.
/// Errors: `NotAuthentic`, `NotForKey` as [`generate`].
pub fn verify(hash: HashKind, key: &[u8], message: &[u8], mac: &[u8]) -> Result<(), CryptoError> {
    match hash {
        HashKind::Sha1 => return Err(CryptoError::NotForKey),
        HashKind::Sha224 => keyed::<Hmac<Sha224>>(key, message).verify_slice(mac),
        HashKind::Sha256 => keyed::<Hmac<Sha256>>(key, message).verify_slice(mac),
        HashKind::Sha384 => keyed::<Hmac<Sha384>>(key, message).verify_slice(mac),
        HashKind::Sha512 => keyed::<Hmac<Sha512>>(key, message).verify_slice(mac),
    }
    .map_err(|_| CryptoError::NotAuthentic)
}

fn keyed<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes every length");
    mac.update(message);
    mac
}
