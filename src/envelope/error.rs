//! What can be wrong with bytes that claim to be ours.

use std::fmt;

use crate::crypto::CryptoError;

/// An error of the format layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// The bytes do not have the form of the named structure.
    Malformed(&'static str),
    /// The structure is of a format or suite that this version does not know.
    Newer(&'static str),
    /// The bytes were not made under this key and place, or were changed.
    NotAuthentic(&'static str),
    /// What is to be stored is larger than its place in the format.
    Oversized(&'static str),
    /// The system gave no randomness, or a primitive refused its input.
    Crypto(CryptoError),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "malformed {what}"),
            Self::Newer(what) => {
                write!(f, "{what} of a newer format: upgrade kmsfs to read it")
            }
            Self::NotAuthentic(what) => write!(f, "{what} is not authentic"),
            Self::Oversized(what) => write!(f, "{what} is larger than the format has room for"),
            Self::Crypto(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for EnvelopeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Crypto(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CryptoError> for EnvelopeError {
    fn from(error: CryptoError) -> Self {
        Self::Crypto(error)
    }
}
