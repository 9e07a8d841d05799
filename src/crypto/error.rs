//! What can go wrong in a primitive.

use std::fmt;

/// A primitive refused. No variant carries key, nonce or plaintext bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CryptoError {
    /// The kernel gave no randomness.
    Random,
    /// Authentication failed: wrong key, wrong associated data or changed bytes. Deliberately
    /// without detail.
    NotAuthentic,
    /// The input is longer, or an output buffer of another length, than the algorithm takes.
    TooLong,
    /// A digest has another length than the hash function gives.
    DigestLength,
    /// The bytes are no key of the expected kind, or a key that must not be used.
    MalformedKey,
    /// The key cannot do what was asked: an algorithm of another kind of key, or a form of the
    /// message that the algorithm does not take.
    NotForKey,
    /// A passphrase cost lies outside the accepted bounds.
    CostRefused,
    /// There is not enough memory for the passphrase cost.
    NoMemory,
}

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "the kernel gave no random bytes",
            Self::NotAuthentic => "not authentic: wrong key or changed data",
            Self::TooLong => "the input has a length that the algorithm does not take",
            Self::DigestLength => "the digest has another length than its hash function gives",
            Self::MalformedKey => "not a well-formed key of the expected kind",
            Self::NotForKey => "the key does not go with this algorithm or form of message",
            Self::CostRefused => "the stored passphrase cost is outside the accepted bounds",
            Self::NoMemory => "not enough memory to derive a key from the passphrase",
        })
    }
}

impl std::error::Error for CryptoError {}
