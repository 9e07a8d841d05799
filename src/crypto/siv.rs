//! AES-256-SIV: deterministic authenticated encryption, for names.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;

use super::{CryptoError, Secret};

/// Bytes that [`SivKey::seal`] puts before the ciphertext.
pub const OVERHEAD: usize = 16;

/// A key of 64 bytes: half for S2V, half for counter mode.
pub struct SivKey(Secret<64>);

impl SivKey {
    /// Takes a copy of `key`.
    pub fn new(key: &Secret<64>) -> Self {
        Self(key.duplicate())
    }

    /// Encrypts `plain`: equal input gives equal output.
    /// Shape: synthetic nonce 16, ciphertext; at most 126 parts of associated data.
    /// Source: RFC 5297.
    pub fn seal(&self, aad: &[&[u8]], plain: &[u8]) -> Vec<u8> {
        self.cipher().encrypt(aad, plain).expect("callers bind a handful of parts, never 127")
    }

    /// Opens what [`SivKey::seal`] made.
    /// Errors: `NotAuthentic`.
    pub fn open(&self, aad: &[&[u8]], sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.cipher().decrypt(aad, sealed).map_err(|_| CryptoError::NotAuthentic)
    }

    /// The crate's cipher is used up by a message, and sharing one would need a lock.
    fn cipher(&self) -> Aes256Siv {
        Aes256Siv::new(self.0.expose().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bound_to_their_associated_data() {
        let key = SivKey::new(&Secret::random().unwrap());
        let sealed = key.seal(&[b"dir"], b"name");
        assert_eq!(sealed, key.seal(&[b"dir"], b"name"));
        assert_eq!(key.open(&[b"dir"], &sealed).unwrap(), b"name");
        for aad in [vec![b"di2".as_slice()], vec![], vec![b"di", b"r"]] {
            assert_eq!(key.open(&aad, &sealed), Err(CryptoError::NotAuthentic));
        }
        assert_eq!(key.open(&[b"dir"], &sealed[..15]), Err(CryptoError::NotAuthentic));
    }
}
