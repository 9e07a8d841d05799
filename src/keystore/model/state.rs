//! The states of a KMS key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a KMS key. Spelled as AWS spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Switched off until it is enabled again.
    Disabled,
    /// Will be destroyed when its waiting period ends.
    PendingDeletion,
    /// Waits for its material.
    PendingImport,
    /// Its key store is not connected.
    Unavailable,
    /// A multi-Region primary key that will be deleted when its replicas are gone.
    PendingReplicaDeletion,
}

impl KeyState {
    pub(in crate::keystore) fn in_words(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending deletion",
            Self::PendingImport => "pending import",
            Self::Unavailable => "unavailable",
            Self::PendingReplicaDeletion => "pending replica deletion",
        }
    }
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
