//! The one owner of key bytes.

use std::fmt;

use subtle::ConstantTimeEq;

use super::room::{ROOM, Room};
use super::{CryptoError, random};

/// `N` secret bytes on the heap, wiped when dropped. Shape: `N` is at most 72.
///
/// Not `Clone`, not `Serialize`, not `Display`; `Debug` prints the type only. Boxed, so that a
/// move copies a pointer and leaves no stray copy; filled in place for the same reason.
pub struct Secret<const N: usize>(Room);

impl<const N: usize> Secret<N> {
    /// Fresh kernel randomness.
    /// Errors: `Random`.
    pub fn random() -> Result<Self, CryptoError> {
        Self::try_filled(|bytes| random::fill(bytes))
    }

    /// The secret that `fill` writes over `N` zero bytes.
    pub fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zero();
        fill(secret.bytes_mut());
        secret
    }

    /// Like [`Secret::filled`], for a `fill` that can fail; what it wrote is wiped then.
    pub fn try_filled<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zero();
        fill(secret.bytes_mut())?;
        Ok(secret)
    }

    /// A copy of `bytes`, or `None` when there are not exactly `N`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == N).then(|| Self::filled(|out| out.copy_from_slice(bytes)))
    }

    /// The secret bytes. The one way to them: every call is looked at in review.
    pub fn expose(&self) -> &[u8; N] {
        self.0.bytes().first_chunk().expect(FITS)
    }

    /// A second owner of the same bytes. Explicit, because each copy is one more to wipe.
    pub fn duplicate(&self) -> Self {
        Self::filled(|out| out.copy_from_slice(self.expose()))
    }

    fn bytes_mut(&mut self) -> &mut [u8; N] {
        self.0.bytes_mut().first_chunk_mut().expect(FITS)
    }

    fn zero() -> Self {
        const { assert!(N <= ROOM, "no secret is larger than its room") };
        Self(Room::zero())
    }
}

/// Overwrites what calls that have returned left on this thread's stack. Key schedules begin with the
/// key, and ciphers move them: none of these copies has an owner who could wipe it.
///
/// Whatever is to be gone must have been done in a function of its own that is not inlined.
#[inline(never)]
pub(super) fn wipe_stack() {
    // Written once, in one go: written byte by byte it took longer than the derivation, and a new file
    // takes a dozen.
    let left = [0_u8; STACK];
    zeroize::optimization_barrier(&left);
}

/// Bytes: deeper than the frames of any key derivation.
const STACK: usize = 12 * 1024;
const FITS: &str = "no secret is larger than its room";

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_prints_the_type_and_no_byte() {
        let secret = Secret::<4>::from_slice(&[0xab; 4]).unwrap();
        assert_eq!(format!("{secret:?}"), "Secret<4>");
    }

    #[test]
    fn only_the_exact_length_is_taken() {
        assert!(Secret::<4>::from_slice(&[1; 3]).is_none());
        assert!(Secret::<4>::from_slice(&[1; 5]).is_none());
        assert_eq!(Secret::<4>::from_slice(&[1; 4]).unwrap().expose(), &[1; 4]);
    }

    #[test]
    fn two_random_secrets_differ_and_a_duplicate_does_not() {
        let secret = Secret::<32>::random().unwrap();
        assert_eq!(secret, secret.duplicate());
        assert_ne!(secret, Secret::random().unwrap());
    }

    #[test]
    fn a_failed_fill_gives_no_secret() {
        let failed = Secret::<4>::try_filled(|bytes| {
            bytes.fill(7);
            Err("no")
        });
        assert_eq!(failed, Err("no"));
    }
}
