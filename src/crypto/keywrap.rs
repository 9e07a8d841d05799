//! AES-256 key wrap with padding, as RSA_AES_KEY_WRAP uses it for imported key material.
//!
//! Source: RFC 5649, SP 800-38F.

use aes_kw::{KeyInit, KwpAes256};
use zeroize::Zeroizing;

use super::CryptoError;

/// Wraps 1 to 8192 bytes; eight to fifteen bytes longer afterwards.
/// Errors: `TooLong` outside these bounds, `MalformedKey` for a wrapping key that has not 32 bytes.
pub fn wrap(wrapping: &[u8], material: &[u8]) -> Result<Vec<u8>, CryptoError> {
    if material.is_empty() || material.len() > MAX_MATERIAL {
        return Err(CryptoError::TooLong);
    }
    let mut out = vec![0; (material.len().div_ceil(SEMIBLOCK) + 1) * SEMIBLOCK];
    cipher(wrapping)?.wrap_key(material, &mut out).map_err(|_| CryptoError::TooLong)?;
    Ok(out)
}

/// Opens what [`wrap`] made.
/// Errors: `NotAuthentic` without detail, `MalformedKey` as [`wrap`].
pub fn unwrap(wrapping: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let cipher = cipher(wrapping)?;
    if wrapped.len() < 2 * SEMIBLOCK || wrapped.len() > MAX_MATERIAL + SEMIBLOCK {
        return Err(CryptoError::NotAuthentic);
    }
    let mut buf = Zeroizing::new(vec![0; wrapped.len() - SEMIBLOCK]);
    let material = cipher.unwrap_key(wrapped, &mut buf).map_err(|_| CryptoError::NotAuthentic)?;
    Ok(Zeroizing::new(material.to_vec()))
}

fn cipher(wrapping: &[u8]) -> Result<KwpAes256, CryptoError> {
    KwpAes256::new_from_slice(wrapping).map_err(|_| CryptoError::MalformedKey)
}

const SEMIBLOCK: usize = 8;

/// Longer than the PKCS #8 form of every private key that can be imported.
const MAX_MATERIAL: usize = 8192;
