//! The SHA functions where the caller chooses one at run time.

use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashKind {
    /// SHA-1: only inside of OAEP, where nothing rests on its collision resistance.
    Sha1,
    /// SHA-224: only inside of HMAC.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashKind {
    /// The length of a digest, in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of `message`.
    pub fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha224 => Sha224::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4, the one-block message "abc": the first four bytes of each digest.
    #[test]
    fn each_function_is_the_one_it_is_named_after() {
        let cases = [
            (HashKind::Sha1, [0xa9, 0x99, 0x3e, 0x36]),
            (HashKind::Sha224, [0x23, 0x09, 0x7d, 0x22]),
            (HashKind::Sha256, [0xba, 0x78, 0x16, 0xbf]),
            (HashKind::Sha384, [0xcb, 0x00, 0x75, 0x3f]),
            (HashKind::Sha512, [0xdd, 0xaf, 0x35, 0xa1]),
        ];
        for (kind, start) in cases {
            let digest = kind.digest(b"abc");
            assert_eq!(digest.len(), kind.digest_len());
            assert!(digest.starts_with(&start), "{kind:?}");
        }
    }
}
