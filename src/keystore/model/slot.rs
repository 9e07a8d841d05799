//! Unlock slots: their numbers, and what they open with.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a slot. Never used twice in a keystore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct SlotId(i64);

impl SlotId {
    /// The slot with this number.
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    pub(in crate::keystore) const fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a slot opens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotKind {
    /// A passphrase, by Argon2id.
    Passphrase,
    /// A key file.
    KeyFile,
    /// A key file that systemd passes as a credential.
    Credential,
    /// A key on a PKCS#11 token.
    Token,
}

impl SlotKind {
    const ALL: [Self; 4] = [Self::Passphrase, Self::KeyFile, Self::Credential, Self::Token];

    /// The kind in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::KeyFile => "key file",
            Self::Credential => "credential",
            Self::Token => "token",
        }
    }

    /// True if what opens a slot of this kind may open one of the `other` kind. A credential is a
    /// key file that came by another way.
    pub(in crate::keystore) fn opens(self, other: Self) -> bool {
        let class = |kind| match kind {
            Self::Passphrase => 0,
            Self::KeyFile | Self::Credential => 1,
            Self::Token => 2,
        };
        class(self) == class(other)
    }

    pub(in crate::keystore) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}
