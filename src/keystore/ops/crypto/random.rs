//! GenerateRandom.

use zeroize::Zeroizing;

use crate::crypto::random;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::plaintext::Plaintext;

impl Keystore {
    /// Random bytes from the kernel.
    /// Shape: 1 to 1024 bytes.
    /// Errors: `Validation` for another length, `AccessDenied`.
    pub fn generate_random(&self, len: usize) -> Result<Plaintext, KeystoreError> {
        if !(1..=MAX_BYTES).contains(&len) {
            let problem = format!("1 to {MAX_BYTES} random bytes are given at once, not {len}");
            return Err(KeystoreError::Validation(problem));
        }
        self.view_all(Action::GenerateRandom, |_| {
            let mut bytes = Zeroizing::new(vec![0; len]);
            random::fill(&mut bytes)?;
            Ok(Plaintext(bytes))
        })
    }
}

const MAX_BYTES: usize = 1024;
