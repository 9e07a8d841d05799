//! AES-256-GCM by the `aes-gcm` crate: the reference, and what wraps keys.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use zeroize::Zeroize;

use super::secret::wipe_stack;
use super::{CryptoError, Nonce, Secret, Tag};

/// An AES-256-GCM key with its key schedule. Wipes itself when dropped. Boxed, so that a move leaves no
/// copy behind.
pub struct AeadKey(Box<Aes256Gcm>);

impl AeadKey {
    /// The key schedule of `key`.
    pub fn new(key: &Secret<32>) -> Self {
        let schedule = schedule(key);
        wipe_stack();
        Self(schedule)
    }

    /// Encrypts `buf` in place and returns its tag. A nonce must never repeat under one key.
    /// Errors: `TooLong` above 64 GiB.
    /// Source: SP 800-38D.
    pub fn seal_in_place(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<Tag, CryptoError> {
        let tag = self.0.encrypt_inout_detached(nonce.into(), aad, buf.into());
        tag.map(Into::into).map_err(|_| CryptoError::TooLong)
    }

    /// Authenticates, then decrypts `buf` in place. On failure `buf` is wiped.
    /// Errors: `NotAuthentic`.
    pub fn open_in_place(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        buf: &mut [u8],
        tag: &Tag,
    ) -> Result<(), CryptoError> {
        let opened =
            self.0.decrypt_inout_detached(nonce.into(), aad, (&mut *buf).into(), tag.into());
        opened.map_err(|_| {
            buf.zeroize();
            CryptoError::NotAuthentic
        })
    }
}

#[inline(never)]
fn schedule(key: &Secret<32>) -> Box<Aes256Gcm> {
    Box::new(Aes256Gcm::new(key.expose().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_tag_wipes_the_buffer() {
        let key = AeadKey::new(&Secret::filled(|k| k.fill(1)));
        let mut buf = *b"sixteen bytes ok";
        let mut tag = key.seal_in_place(&[0; 12], b"aad", &mut buf).unwrap();
        tag[0] ^= 1;
        let opened = key.open_in_place(&[0; 12], b"aad", &mut buf, &tag);
        assert_eq!(opened, Err(CryptoError::NotAuthentic));
        assert_eq!(buf, [0; 16]);
    }
}
