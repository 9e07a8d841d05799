//! AES-256-GCM for page contents.
//!
//! With the feature `aws-lc` (on by default) AWS-LC does the work (VAES, AVX-512); without it the
//! reference in `aes-gcm`. The bytes are identical, and the tests hold both against each other.

use zeroize::Zeroize;

use super::secret::wipe_stack;
use super::{CryptoError, Nonce, Secret, Tag};

#[cfg(feature = "aws-lc")]
use fast::Backend;
#[cfg(not(feature = "aws-lc"))]
use portable::Backend;

/// An AES-256-GCM key for many pages.
pub struct BulkKey(Backend);

impl BulkKey {
    /// The key schedule of `key`.
    pub fn new(key: &Secret<32>) -> Self {
        let backend = Backend::new(key);
        wipe_stack();
        Self(backend)
    }

    /// Encrypts `plain` into `out` and returns the tag. A nonce must never repeat under one key.
    /// Shape: `out.len() == plain.len()`.
    /// Errors: `TooLong` for any other length.
    pub fn seal_to(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        plain: &[u8],
        out: &mut [u8],
    ) -> Result<Tag, CryptoError> {
        if plain.len() != out.len() {
            return Err(CryptoError::TooLong);
        }
        self.0.seal_to(nonce, aad, plain, out)
    }

    /// Encrypts `buf` in place and returns the tag. A nonce must never repeat under one key.
    /// Errors: `TooLong` above 64 GiB.
    pub fn seal_in_place(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<Tag, CryptoError> {
        self.0.seal_in_place(nonce, aad, buf)
    }

    /// Authenticates `cipher` and decrypts it into `out`. On failure `out` is wiped.
    /// Shape: `out.len() == cipher.len()`.
    /// Errors: `NotAuthentic`; `TooLong` for any other length.
    pub fn open_to(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        cipher: &[u8],
        tag: &Tag,
        out: &mut [u8],
    ) -> Result<(), CryptoError> {
        if cipher.len() != out.len() {
            return Err(CryptoError::TooLong);
        }
        self.0.open_to(nonce, aad, cipher, tag, out).inspect_err(|_| out.zeroize())
    }
}

#[cfg(feature = "aws-lc")]
mod fast {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LcNonce, UnboundKey};

    use super::{CryptoError, Nonce, Secret, Tag};

    /// Boxed, so that a move leaves no copy of the key schedule behind.
    pub(super) struct Backend(Box<LessSafeKey>);

    impl Backend {
        #[inline(never)]
        pub(super) fn new(key: &Secret<32>) -> Self {
            let unbound = UnboundKey::new(&AES_256_GCM, key.expose());
            let unbound = unbound.expect("AES-256-GCM takes every key of 32 bytes");
            Self(Box::new(LessSafeKey::new(unbound)))
        }

        pub(super) fn seal_to(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            plain: &[u8],
            out: &mut [u8],
        ) -> Result<Tag, CryptoError> {
            let mut tag = [0; 16];
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            self.0
                .seal_out_of_place_scatter(nonce, Aad::from(aad), plain, out, &[], &mut tag)
                .map_err(|_| CryptoError::TooLong)?;
            Ok(tag)
        }

        pub(super) fn seal_in_place(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            buf: &mut [u8],
        ) -> Result<Tag, CryptoError> {
            let mut tag = [0; 16];
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            self.0
                .seal_in_place_scatter(nonce, Aad::from(aad), buf, &[], &mut tag)
                .map_err(|_| CryptoError::TooLong)?;
            Ok(tag)
        }

        pub(super) fn open_to(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            cipher: &[u8],
            tag: &Tag,
            out: &mut [u8],
        ) -> Result<(), CryptoError> {
            let nonce = LcNonce::assume_unique_for_key(*nonce);
            self.0
                .open_separate_gather(nonce, Aad::from(aad), cipher, tag, out)
                .map_err(|_| CryptoError::NotAuthentic)
        }
    }
}

#[cfg(any(test, not(feature = "aws-lc")))]
mod portable {
    use super::{CryptoError, Nonce, Secret, Tag};
    use crate::crypto::aead::AeadKey;

    pub(super) struct Backend(AeadKey);

    impl Backend {
        pub(super) fn new(key: &Secret<32>) -> Self {
            Self(AeadKey::new(key))
        }

        pub(super) fn seal_to(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            plain: &[u8],
            out: &mut [u8],
        ) -> Result<Tag, CryptoError> {
            out.copy_from_slice(plain);
            self.0.seal_in_place(nonce, aad, out)
        }

        pub(super) fn seal_in_place(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            buf: &mut [u8],
        ) -> Result<Tag, CryptoError> {
            self.0.seal_in_place(nonce, aad, buf)
        }

        pub(super) fn open_to(
            &self,
            nonce: &Nonce,
            aad: &[u8],
            cipher: &[u8],
            tag: &Tag,
            out: &mut [u8],
        ) -> Result<(), CryptoError> {
            out.copy_from_slice(cipher);
            self.0.open_in_place(nonce, aad, out, tag)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every length around each internal step of the vector code, and a sample of the rest.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..=4096).filter(|n| n % 61 == 0 || n % 128 < 2 || n % 128 == 127 || *n < 64 || *n > 4040)
    }

    #[test]
    fn both_backends_make_the_same_bytes_for_every_length() {
        let key = Secret::random().unwrap();
        let (chosen, reference) = (BulkKey::new(&key), portable::Backend::new(&key));
        let plain: Vec<u8> = (0..4096_u32).map(|i| i.to_le_bytes()[0] ^ 0x5a).collect();
        for len in lengths() {
            let (plain, aad) = (&plain[..len], &plain[len % 40..40]);
            let nonce = [u8::try_from(len % 251).unwrap(); 12];
            let (mut a, mut b) = (vec![0; len], vec![0; len]);
            let tag_a = chosen.seal_to(&nonce, aad, plain, &mut a).unwrap();
            let tag_b = reference.seal_to(&nonce, aad, plain, &mut b).unwrap();
            assert_eq!((&a, tag_a), (&b, tag_b), "{len}");
            let mut c = plain.to_vec();
            assert_eq!(chosen.seal_in_place(&nonce, aad, &mut c), Ok(tag_a), "{len}");
            assert_eq!(a, c, "{len}");
            let mut d = plain.to_vec();
            assert_eq!(reference.seal_in_place(&nonce, aad, &mut d), Ok(tag_a), "{len}");
            chosen.open_to(&nonce, aad, &b, &tag_b, &mut c).unwrap();
            reference.open_to(&nonce, aad, &a, &tag_a, &mut d).unwrap();
            assert_eq!((c.as_slice(), d.as_slice()), (plain, plain), "{len}");
        }
    }

    #[test]
    fn failed_authentication_leaves_zeros_in_the_output() {
        let key = BulkKey::new(&Secret::random().unwrap());
        let (mut cipher, mut out) = (vec![7; 4000], vec![9; 4000]);
        let tag = key.seal_in_place(&[1; 12], b"", &mut cipher).unwrap();
        cipher[3999] ^= 1;
        let opened = key.open_to(&[1; 12], b"", &cipher, &tag, &mut out);
        assert_eq!(opened, Err(CryptoError::NotAuthentic));
        assert!(out.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn buffers_of_different_lengths_are_refused() {
        let key = BulkKey::new(&Secret::random().unwrap());
        assert_eq!(key.seal_to(&[0; 12], b"", &[0; 2], &mut [0]), Err(CryptoError::TooLong));
        let opened = key.open_to(&[0; 12], b"", &[0; 2], &[0; 16], &mut [0]);
        assert_eq!(opened, Err(CryptoError::TooLong));
    }
}
