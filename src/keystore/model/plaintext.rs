//! Decrypted bytes.

use zeroize::Zeroizing;

/// Decrypted bytes: wiped when dropped, not shown by `Debug`.
pub struct Plaintext(pub(in crate::keystore) Zeroizing<Vec<u8>>);

impl Plaintext {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Plaintext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plaintext({} bytes)", self.0.len())
    }
}
