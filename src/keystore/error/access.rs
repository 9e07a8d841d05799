//! What is refused about policies, grants and access keys.

use std::fmt;

use crate::keystore::model::id::GrantId;
use crate::keystore::policy::PolicyError;

/// Something is wrong with a policy, a grant or an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessError {
    /// A policy document that is not accepted.
    MalformedPolicy(PolicyError),
    /// With this key policy the caller could not change it again.
    Lockout,
    /// No policy with this name.
    PolicyNotFound(String),
    /// The text is no principal of this account.
    InvalidPrincipal(String),
    /// The text cannot be a grant's id.
    InvalidGrantId(String),
    /// The key has no such grant.
    GrantNotFound(GrantId),
    /// Not a token of a grant that exists.
    InvalidGrantToken,
    /// No access key with this id.
    AccessKeyNotFound(String),
}

impl AccessError {
    /// The AWS KMS exception that this error is on the wire.
    pub fn aws_name(&self) -> &'static str {
        match self {
            Self::MalformedPolicy(_) | Self::Lockout => "MalformedPolicyDocumentException",
            Self::PolicyNotFound(_) | Self::GrantNotFound(_) | Self::AccessKeyNotFound(_) => {
                "NotFoundException"
            }
            Self::InvalidPrincipal(_) => "InvalidArnException",
            Self::InvalidGrantId(_) => "InvalidGrantIdException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
        }
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MalformedPolicy(error) => error.fmt(f),
            Self::Lockout => f.write_str(
                "The new key policy will not allow you to update the key policy in the future.",
            ),
            Self::PolicyNotFound(name) => write!(f, "No such policy exists: '{name}'"),
            Self::InvalidPrincipal(text) => write!(
                f,
                "Invalid arn {text}: a principal is arn:aws:iam::000000000000:root, ...:user/NAME, \
                 ...:user/unix/UID or ...:group/unix/GID"
            ),
            Self::InvalidGrantId(text) => write!(f, "Invalid grant ID '{text}'"),
            Self::GrantNotFound(id) => write!(f, "Grant ID {id} not found"),
            Self::InvalidGrantToken => f.write_str("Invalid grant token"),
            Self::AccessKeyNotFound(id) => {
                write!(f, "The Access Key with id {id} cannot be found.")
            }
        }
    }
}

impl std::error::Error for AccessError {}
