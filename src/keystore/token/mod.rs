//! PKCS#11 tokens: AES-256 keys that are made on the token, never leave it, and wrap there.
//!
//! The only home of the `cryptoki` crate. A [`Token`] is named by the module (a shared library)
//! and by its label or serial number; nothing is loaded before the first use. Invariants:
//!
//! - A module has one state for the whole process, so there is one [`module::Module`] for each
//!   library. A new start of the library ends every session of every token in it: sessions carry
//!   the epoch in which they were opened and are dropped without a call when it is over.
//! - A token that went away answers [`TokenError::Unavailable`] and is looked for again at the
//!   next use, at most once a second; when it is back, it works.
//! - A PIN goes to `C_Login` only, and never into a message.
//!
//! Locks: the module's, then a token's pool of sessions; neither is held with a lock of the
//! keystore that another thread needs to answer from memory.

use std::fmt;
use std::path::{Path, PathBuf};

use cryptoki::slot::TokenInfo;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

mod error;
mod keys;
mod module;
mod session;
#[cfg(test)]
mod tests;
mod wrap;

pub use error::TokenError;
pub(super) use session::Token;

/// Where a token is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenRef {
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// The token's label, or its serial number.
    pub token: String,
}

impl TokenRef {
    /// The token with this label or serial number, reached through this module.
    pub fn new(module: &Path, token: &str) -> Self {
        Self { module: module.to_owned(), token: token.to_owned() }
    }
}

/// The serial number of a token. Labels are given by whoever initialises a token: another one may
/// have the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::keystore) struct Serial(String);

impl Serial {
    /// What a token says; `None` of one that has none.
    fn of(info: &TokenInfo) -> Option<Self> {
        let text = info.serial_number().trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token '{}' of {}", self.token, self.module.display())
    }
}

/// The PIN of a token's user. Wiped when dropped, not shown by `Debug`. Empty for a token that
/// asks for it on a keypad of its own.
pub struct Pin(Zeroizing<Vec<u8>>);

impl Pin {
    /// The PIN with these bytes.
    pub const fn new(pin: Zeroizing<Vec<u8>>) -> Self {
        Self(pin)
    }

    /// The bytes, for who passes them on.
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// A second owner of the same bytes.
    pub(super) fn duplicate(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin")
    }
}
