//! XAES-256-GCM: AES-256-GCM with a 24-byte nonce that may be drawn at random.
//!
//! The first half of the nonce and the key give a derived key (SP 800-108 counter KDF over
//! AES-CMAC), under which the second half is an ordinary GCM nonce. Source: C2SP XAES-256-GCM.

use aes::Aes256;
use cmac::{Cmac, KeyInit, Mac};
use zeroize::Zeroizing;

use super::aead::AeadKey;
use super::secret::wipe_stack;
use super::{CryptoError, Nonce, Secret, Tag, random};

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 24;

/// Bytes that [`seal`] adds to a plaintext: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + size_of::<Tag>();

/// The AES-256-GCM key for every nonce that starts with `nonce_prefix`.
pub fn derive_key(key: &Secret<32>, nonce_prefix: &Nonce) -> Secret<32> {
    let derived = schedule_and_derive(key, nonce_prefix);
    wipe_stack();
    derived
}

#[inline(never)]
fn schedule_and_derive(key: &Secret<32>, nonce_prefix: &Nonce) -> Secret<32> {
    XaesKey::new(key).derive(nonce_prefix)
}

#[inline(never)]
fn schedule(key: &Secret<32>) -> Box<Cmac<Aes256>> {
    Box::new(Cmac::new(key.expose().into()))
}

/// Encrypts under a fresh random nonce.
/// Shape: nonce 24, ciphertext, tag 16.
/// Errors: `Random`, `TooLong`.
pub fn seal(key: &Secret<32>, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
    XaesKey::new(key).seal(aad, plaintext)
}

/// Opens what [`seal`] made.
/// Errors: `NotAuthentic`, also for input too short to have been sealed.
pub fn open(
    key: &Secret<32>,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    XaesKey::new(key).open(aad, sealed)
}

/// A key for many messages: the part of the derivation that does not depend on the nonce is done
/// once. Wipes itself when dropped.
///
/// Boxed, so that a move leaves no copy behind.
pub struct XaesKey(Box<Cmac<Aes256>>);

impl XaesKey {
    /// The key schedule of `key`.
    pub fn new(key: &Secret<32>) -> Self {
        let schedule = schedule(key);
        wipe_stack();
        Self(schedule)
    }

    /// The AES-256-GCM key for every nonce that starts with `nonce_prefix`.
    pub fn derive_key(&self, nonce_prefix: &Nonce) -> Secret<32> {
        let derived = self.derive(nonce_prefix);
        wipe_stack();
        derived
    }

    #[inline(never)]
    fn derive(&self, nonce_prefix: &Nonce) -> Secret<32> {
        let mut block = [0; 16];
        block[2] = b'X';
        block[4..].copy_from_slice(nonce_prefix);
        Secret::filled(|out| {
            for (counter, half) in (1..).zip(out.chunks_exact_mut(16)) {
                block[1] = counter;
                let mut mac = (*self.0).clone();
                mac.update(&block);
                half.copy_from_slice(&mac.finalize().into_bytes());
            }
        })
    }

    /// Encrypts `buf` in place and returns its tag. A nonce must never repeat under one key.
    /// Errors: `TooLong` above 64 GiB.
    pub fn seal_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
    ) -> Result<Tag, CryptoError> {
        let (prefix, rest) = halves(nonce);
        AeadKey::new(&self.derive_key(&prefix)).seal_in_place(&rest, aad, buf)
    }

    /// Authenticates, then decrypts `buf` in place. On failure `buf` is wiped.
    /// Errors: `NotAuthentic`.
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buf: &mut [u8],
        tag: &Tag,
    ) -> Result<(), CryptoError> {
        let (prefix, rest) = halves(nonce);
        AeadKey::new(&self.derive_key(&prefix)).open_in_place(&rest, aad, buf, tag)
    }

    /// Encrypts under a fresh random nonce.
    /// Shape: nonce 24, ciphertext, tag 16.
    /// Errors: `Random`, `TooLong`.
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = [0; NONCE_LEN];
        random::fill_nonces(&mut nonce)?;
        // The exact capacity, so that no reallocation leaves plaintext behind.
        let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plaintext);
        let (_, buf) = sealed.split_at_mut(NONCE_LEN);
        let tag = self.seal_in_place(&nonce, aad, buf)?;
        sealed.extend_from_slice(&tag);
        Ok(sealed)
    }

    /// Opens what [`XaesKey::seal`] made.
    /// Errors: `NotAuthentic`, also for input too short to have been sealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let parts = sealed.split_first_chunk().and_then(|(nonce, rest)| {
            rest.split_last_chunk().map(|(ciphertext, tag)| (nonce, ciphertext, tag))
        });
        let (nonce, ciphertext, tag) = parts.ok_or(CryptoError::NotAuthentic)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        self.open_in_place(nonce, aad, &mut plaintext, tag)?;
        Ok(plaintext)
    }
}

fn halves(nonce: &[u8; NONCE_LEN]) -> (Nonce, Nonce) {
    let (mut prefix, mut rest) = ([0; 12], [0; 12]);
    prefix.copy_from_slice(&nonce[..12]);
    rest.copy_from_slice(&nonce[12..]);
    (prefix, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_again_under_the_same_key_and_aad_only() {
        let (key, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        let sealed = seal(&key, b"aad", b"hello").unwrap();
        assert_eq!(sealed.len(), 5 + OVERHEAD);
        assert_eq!(open(&key, b"aad", &sealed).unwrap().as_slice(), b"hello");
        assert_eq!(open(&key, b"aae", &sealed), Err(CryptoError::NotAuthentic));
        assert_eq!(open(&other, b"aad", &sealed), Err(CryptoError::NotAuthentic));
    }

    #[test]
    fn short_and_changed_input_is_not_authentic() {
        let key = Secret::random().unwrap();
        let sealed = seal(&key, b"", b"x").unwrap();
        for cut in 0..sealed.len() {
            assert_eq!(open(&key, b"", &sealed[..cut]), Err(CryptoError::NotAuthentic));
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert_eq!(open(&key, b"", &changed), Err(CryptoError::NotAuthentic));
        }
    }
}
