//! Plaintext that is wiped when it is dropped.

use std::fmt;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes of contents, wiped in one go when dropped: `zeroize` wipes arrays and vectors byte by byte,
/// which takes longer than encrypting them. `Debug` prints no byte.
///
/// A page is too large for the stack of a move: box it where it changes hands.
#[derive(Clone, PartialEq, Eq)]
pub struct Wiped<B: AsMut<[u8]>>(B);

impl<B: AsMut<[u8]>> Wiped<B> {
    /// Takes over `bytes`, whose memory stays where it is until the drop: arrays and boxed slices, not
    /// what grows.
    pub const fn new(bytes: B) -> Self {
        Self(bytes)
    }
}

impl<B: AsMut<[u8]>> Drop for Wiped<B> {
    fn drop(&mut self) {
        self.0.as_mut().zeroize();
    }
}

impl<B: AsMut<[u8]>> Deref for Wiped<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B: AsMut<[u8]>> DerefMut for Wiped<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.0
    }
}

impl<B: AsMut<[u8]>> fmt::Debug for Wiped<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Bytes that tell what they were when they were dropped.
    struct Watched<'a>([u8; 3], &'a Cell<[u8; 3]>);

    impl AsMut<[u8]> for Watched<'_> {
        fn as_mut(&mut self) -> &mut [u8] {
            &mut self.0
        }
    }

    impl Drop for Watched<'_> {
        fn drop(&mut self) {
            self.1.set(self.0);
        }
    }

    #[test]
    fn bytes_are_zeros_when_they_are_dropped() {
        let left = Cell::new([9; 3]);
        let mut wiped = Wiped::new(Watched([0; 3], &left));
        wiped.as_mut().copy_from_slice(&[1, 2, 3]);
        assert_eq!(wiped.0.0, [1, 2, 3]);
        drop(wiped);
        assert_eq!(left.get(), [0; 3]);
    }

    #[test]
    fn debug_prints_no_byte() {
        assert_eq!(format!("{:?}", Wiped::new([0xab; 2])), "Wiped");
    }
}
