//! How other users get into a vault.

use std::fmt;

/// How other users get into a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// It belongs to this user, who is neither root nor the one who asks.
    Owner(u32),
    /// Its mode lets them.
    Mode(u32),
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner(uid) => write!(f, "it belongs to user {uid}"),
            Self::Mode(mode) => write!(f, "its mode is {mode:04o}"),
        }
    }
}
