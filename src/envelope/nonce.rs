//! The random halves of the nonces of units (FORMAT section 5, R11): drawn here and nowhere else.

use super::layout::GROUP_BLOCKS;
use crate::crypto::{CryptoError, Nonce, random};

/// The data pages of the longest group and its spill page: what one request seals at a time.
const AT_ONCE: usize = 75;
const _: () = assert!(AT_ONCE as u64 == GROUP_BLOCKS + 1);

/// Fresh nonces for the units of one request.
///
/// Drawn in one call, because the generator looks at its age and its process in each. Only sealing
/// takes one out, and by that it is gone: none can be named, kept, copied or made of zeros.
pub struct Nonces {
    drawn: [Nonce; AT_ONCE],
    left: usize,
}

/// One half of a nonce, to be used once.
pub(super) struct FreshNonce(Nonce);

impl Nonces {
    /// Nonces for `units` units.
    ///
    /// # Errors
    /// `Random` if the system gives no randomness.
    pub fn draw(units: usize) -> Result<Self, CryptoError> {
        let (mut drawn, left) = ([[0; 12]; AT_ONCE], units.clamp(1, AT_ONCE));
        random::fill_nonces(drawn[..left].as_flattened_mut())?;
        Ok(Self { drawn, left })
    }

    /// The next one; drawn anew for more units than were asked for.
    pub(super) fn take(&mut self) -> Result<FreshNonce, CryptoError> {
        if self.left == 0 {
            *self = Self::draw(1)?;
        }
        self.left -= 1;
        Ok(FreshNonce(self.drawn[self.left]))
    }
}

impl FreshNonce {
    /// A nonce by itself.
    pub(super) fn draw() -> Result<Self, CryptoError> {
        Nonces::draw(1)?.take()
    }

    /// The bytes, for the one unit or derived key that they are for.
    pub(super) fn use_up(self) -> Nonce {
        self.0
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_is_zero_or_comes_twice_however_many_were_asked_for() {
        let mut seen = HashSet::from([[0; 12]]);
        for asked in [0, 1, 2, AT_ONCE, AT_ONCE + 1] {
            let mut nonces = Nonces::draw(asked).unwrap();
            for taken in 0..asked + 3 {
                let nonce = nonces.take().unwrap().use_up();
                assert!(seen.insert(nonce), "{taken} of {asked}");
            }
        }
    }
}
