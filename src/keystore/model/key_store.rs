//! Custom key stores: their ids, and the states of their connections.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::crypto::{CryptoError, random};
use crate::id::MaterialId;

/// The id of a key store: `cks-` and 17 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyStoreId([u8; 16]);

/// Is a key store connected?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionState {
    /// Its keys can be used while the token is there.
    Connected,
    /// Its keys are unavailable.
    Disconnected,
    /// The last attempt to connect failed; disconnect before the next one.
    Failed,
}

/// Why an attempt to connect failed. Spelled as AWS spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionErrorCode {
    /// The PIN is wrong.
    InvalidCredentials,
    /// The token is not there.
    ClusterNotFound,
    /// The token takes no PIN any more.
    UserLockedOut,
    /// The module or the token fails.
    InternalError,
}

impl KeyStoreId {
    const DIGITS: usize = 17;

    pub(in crate::keystore) fn random() -> Result<Self, CryptoError> {
        let mut bytes = random::id16()?;
        let (_, rest) = bytes.split_at_mut(Self::DIGITS / 2);
        rest.fill(0);
        Ok(Self(bytes))
    }

    /// The id that a text is.
    pub(in crate::keystore) fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("cks-").filter(|digits| digits.len() == Self::DIGITS)?;
        let padded = format!("{digits}{}", "0".repeat(32 - Self::DIGITS));
        Some(Self(*padded.parse::<MaterialId>().ok()?.as_bytes()))
    }

    pub(in crate::keystore) const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub(in crate::keystore) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for KeyStoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = base16ct::lower::encode_string(&self.0);
        write!(f, "cks-{}", digits.get(..Self::DIGITS).unwrap_or_default())
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_aws_and_read_back() {
        let id = KeyStoreId::random().unwrap();
        let text = id.to_string();
        assert_eq!(text.len(), 21);
        assert_eq!(KeyStoreId::read(&text), Some(id));
        for wrong in ["", "cks-", "cks-1234567890123456", "cks-1234567890123456x", "1234567890"] {
            assert_eq!(KeyStoreId::read(wrong), None, "{wrong}");
        }
    }
}
