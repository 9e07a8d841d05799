//! What AWS calls the failures of multi-Region keys, and those of transfers, which AWS has not.

use std::fmt;

use crate::id::KeyId;
use crate::keystore::model::id::KeyArn;

/// Why a key is not replicated, or not received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaError {
    /// The key is of one Region.
    NotMultiRegion(KeyId),
    /// The key is a replica, and only the primary can do this.
    IsReplica {
        /// The key.
        key: KeyId,
        /// The Region of the primary.
        primary: String,
    },
    /// A related key is in that Region already.
    Exists {
        /// The key.
        key: KeyId,
        /// The Region.
        region: String,
    },
    /// No related key is in that Region.
    NoReplica {
        /// The key.
        key: KeyId,
        /// The Region.
        region: String,
    },
    /// A file that is no transfer or transfer key, or was changed.
    Malformed(&'static str),
    /// A transfer for another keystore, used already, or older than a day.
    NotExpected,
    /// A transfer from before the primary key moved, or a hand-over that was received already.
    Superseded {
        /// The key.
        key: KeyId,
        /// Where the primary key is, as far as is known here.
        primary: String,
    },
    /// A transfer from a keystore that does not have the primary key, and was not given it.
    NotPrimary {
        /// The key.
        key: KeyId,
        /// Where the transfer comes from.
        from: String,
        /// Where the primary key is, as far as is known here.
        primary: String,
    },
    /// The other keystore is not the one that is trusted.
    Stranger {
        /// What it is known by.
        found: String,
    },
}

impl ReplicaError {
    /// The AWS KMS exception that this error is on the wire.
    pub fn aws_name(&self) -> &'static str {
        match self {
            Self::NotMultiRegion(_) | Self::IsReplica { .. } => "UnsupportedOperationException",
            Self::Exists { .. } => "AlreadyExistsException",
            Self::NoReplica { .. } => "NotFoundException",
            Self::Malformed(_) | Self::NotExpected => "ValidationException",
            Self::Superseded { .. } => "KMSInvalidStateException",
            Self::NotPrimary { .. } | Self::Stranger { .. } => "AccessDeniedException",
        }
    }
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMultiRegion(key) => write!(f, "{} is not a multi-Region key.", KeyArn(*key)),
            Self::IsReplica { key, primary } => write!(
                f,
                "{} is a multi-Region replica key; the primary key is in {primary}.",
                KeyArn(*key)
            ),
            Self::Exists { key, region } => {
                write!(f, "A key with id {key} exists in the Region {region} already.")
            }
            Self::NoReplica { key, region } => {
                write!(f, "There is no replica of {} in the Region {region}.", KeyArn(*key))
            }
            Self::Malformed(what) => write!(f, "this is no {what}, or it was changed"),
            Self::NotExpected => f.write_str(
                "the transfer was made for another keystore, was received already, or is older \
                 than a day: make a new transfer key and seal it again",
            ),
            Self::Superseded { key, primary } => write!(
                f,
                "the transfer of {} is older than what is known here, where its primary key is in \
                 {primary}: make a new transfer there",
                KeyArn(*key)
            ),
            Self::NotPrimary { key, from, primary } => write!(
                f,
                "the transfer of {} comes from a keystore in {from} that its primary key, known to \
                 be in {primary}, was not handed over to: make the transfer where the primary key is",
                KeyArn(*key)
            ),
            Self::Stranger { found } => write!(
                f,
                "the other keystore has the identity {found}, which is not the one that is \
                 trusted: compare it with what 'kmsfs keystore identity' shows there"
            ),
        }
    }
}

impl std::error::Error for ReplicaError {}
