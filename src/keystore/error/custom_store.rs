//! What AWS calls the failures of key stores, and what they mean with a token.

use std::fmt;

use crate::keystore::model::key_store::{ConnectionState, KeyStoreId};
use crate::keystore::token::TokenError;

/// Why a key store does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyStoreError {
    /// No key store has this id or name.
    NotFound(String),
    /// Another key store has this name.
    NameInUse(String),
    /// Another key store has this token.
    TokenInUse(String),
    /// The connection is in a state that forbids the operation.
    InvalidState {
        /// The key store.
        id: KeyStoreId,
        /// Its state.
        state: ConnectionState,
        /// What to do first.
        advice: &'static str,
    },
    /// Keys belong to it; this many.
    HasKeys(KeyStoreId, usize),
    /// The module cannot be used.
    Module(TokenError),
    /// The token is not there.
    TokenNotFound(TokenError),
    /// The token is there and not usable with this PIN.
    TokenConfiguration(TokenError),
}

impl KeyStoreError {
    /// What a failure of the token means for its key store.
    pub(in crate::keystore) fn of(error: TokenError) -> Self {
        match error {
            TokenError::Module { .. } => Self::Module(error),
            TokenError::NotFound(_) | TokenError::Another(..) | TokenError::Unavailable(..) => {
                Self::TokenNotFound(error)
            }
            TokenError::Ambiguous(_)
            | TokenError::WrongPin(_)
            | TokenError::PinUnusable(..)
            | TokenError::Unsupported(..)
            | TokenError::KeyMissing(_)
            | TokenError::NotAuthentic => Self::TokenConfiguration(error),
        }
    }

    /// The AWS KMS exception that this error is on the wire.
    pub fn aws_name(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "CustomKeyStoreNotFoundException",
            Self::NameInUse(_) => "CustomKeyStoreNameInUseException",
            Self::TokenInUse(_) => "CloudHsmClusterInUseException",
            Self::InvalidState { .. } => "CustomKeyStoreInvalidStateException",
            Self::HasKeys(..) => "CustomKeyStoreHasCMKsException",
            Self::Module(_) => "IncorrectTrustAnchorException",
            Self::TokenNotFound(_) => "CloudHsmClusterNotFoundException",
            Self::TokenConfiguration(_) => "CloudHsmClusterInvalidConfigurationException",
        }
    }
}

impl fmt::Display for KeyStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(named) => write!(f, "there is no key store '{named}'"),
            Self::NameInUse(name) => write!(f, "a key store with the name '{name}' exists"),
            Self::TokenInUse(token) => {
                write!(f, "the token '{token}' belongs to another key store already")
            }
            Self::InvalidState { id, state, advice } => {
                write!(f, "the key store {id} is {state}: {advice}")
            }
            Self::HasKeys(id, count) => write!(
                f,
                "{count} keys belong to the key store {id}: schedule their deletion, and wait \
                 until they are deleted"
            ),
            Self::Module(error) | Self::TokenNotFound(error) | Self::TokenConfiguration(error) => {
                error.fmt(f)
            }
        }
    }
}

impl std::error::Error for KeyStoreError {}

impl From<TokenError> for KeyStoreError {
    fn from(error: TokenError) -> Self {
        Self::of(error)
    }
}
