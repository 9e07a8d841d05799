//! What can go wrong in a volume. `fuse::errno` and `cli::env::failure` translate it, variant by variant.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use super::exposure::Exposure;
use super::misplaced::Misplaced;
use crate::crypto::CryptoError;
use crate::envelope::EnvelopeError;
use crate::id::KeyId;
use crate::keystore::KeystoreError;

/// The result of an operation on a volume.
pub type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// An error of a volume.
#[derive(Debug)]
#[non_exhaustive]
pub enum VolumeError {
    /// The backing filesystem refused.
    Io(Errno),
    /// Bytes that must be authentic are not: changed, moved, cut or zeroed by someone.
    Tampered(&'static str),
    /// An authentic directory that does not belong where it is.
    Misplaced(Misplaced),
    /// Another directory of the vault has the same id; with its backing path.
    Twin(PathBuf),
    /// A crash lost bytes that nobody had synced, or damage cannot be told from that.
    Lost(&'static str),
    /// The header names a KMS key that this directory does not accept (FORMAT section 10).
    ForeignKey {
        /// The key that the header names.
        found: KeyId,
    },
    /// The KMS key is disabled, pending deletion, or gone.
    KeyUnusable(KeyId),
    /// No policy or grant lets the user use the KMS key. Whoever denies it has logged it.
    Denied(KeyId),
    /// A foreign KMS wrapped the key, and the vault is not open by way of its endpoint.
    WrappedElsewhere(KeyId),
    /// The KMS at an endpoint does not answer; with the reason.
    KmsUnreachable(String),
    /// The KMS at an endpoint does not let this volume's access key use the key; in its words.
    KmsDenied(String),
    /// The KMS at an endpoint refused for another reason, in its words.
    Kms(String),
    /// The keystore refused for another reason.
    Keystore(Box<KeystoreError>),
    /// The structure is of a later format.
    Newer(&'static str),
    /// The directory is not a vault.
    NotAVolume(PathBuf),
    /// Someone else holds the vault.
    InUse,
    /// A name, or the encrypted form of a link target, is too long.
    NameTooLong,
    /// The name is reserved for what is not ours to decrypt.
    ReservedName,
    /// Directories of different KMS keys, and the target asks for a copy.
    CrossPolicy,
    /// A file has names that would come under different KMS keys.
    LinkedElsewhere,
    /// A directory has no room for another former key.
    FormerKeys,
    /// Other users could then enter the vault's directory.
    WouldOpenVault,
    /// Other users may enter the vault's directory.
    OpenVault(Exposure),
    /// The volume is mounted read-only.
    ReadOnly,
    /// The file would be longer than the format allows.
    TooLarge,
    /// No such entry.
    NotFound,
    /// The inode is no longer known or no longer exists.
    Stale,
    /// What a KMS gave is larger than its place in the format.
    Oversized(&'static str),
    /// The directory is not empty.
    NotEmpty,
    /// The system gave no randomness.
    Random,
    /// `/proc` is not there: what is held by a descriptor is reached through it.
    NoProc,
    /// Nothing outside the vault can remember the session; with the reason.
    Unanchored(String),
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(errno) => write!(f, "{}", io::Error::from(*errno)),
            Self::Tampered(what) => {
                write!(f, "{what} is not authentic: changed or cut from outside")
            }
            Self::Misplaced(why) => write!(f, "the directory is not in its place: {why}"),
            Self::Twin(path) => {
                write!(f, "it is a copy: {} in the vault has the same id", path.display())
            }
            Self::Lost(what) => write!(f, "{what} was lost in a crash"),
            Self::ForeignKey { found } => {
                write!(f, "the header names KMS key {found}, which the directory does not accept")
            }
            Self::KeyUnusable(key) => write!(f, "KMS key {key} cannot be used now"),
            Self::Denied(key) => write!(f, "no policy or grant allows the use of KMS key {key}"),
            Self::WrappedElsewhere(key) => {
                write!(f, "the data key is wrapped by key {key} of a KMS elsewhere")
            }
            Self::KmsUnreachable(why) => write!(f, "the KMS does not answer: {why}"),
            Self::KmsDenied(words) | Self::Kms(words) => write!(f, "the KMS refused: {words}"),
            Self::Keystore(error) => error.fmt(f),
            Self::Newer(what) => write!(f, "{what} of a newer format: upgrade kmsfs"),
            Self::NotAVolume(path) => write!(
                f,
                "{} is not a kmsfs vault: make one with 'kmsfs init' or 'mount --create'",
                path.display()
            ),
            Self::InUse => f.write_str("the vault is in use by another process"),
            Self::NameTooLong => f.write_str("the name is too long"),
            Self::ReservedName => {
                f.write_str("names that start with 'kmsfs.foreign.' are reserved")
            }
            Self::CrossPolicy => f.write_str("the directories have different KMS keys"),
            Self::LinkedElsewhere => f.write_str(
                "a file there has another hard link in a directory that keeps its KMS key: \
                 all names of a file must be under one key",
            ),
            Self::FormerKeys => f.write_str(
                "the directory has files of three former KMS keys already: \
                 'kmsfs rewrap VAULT' brings them under its key",
            ),
            Self::WouldOpenVault => f.write_str(
                "the root of the mount is not opened to other users, since the vault would be too: \
                 move the vault below a directory that only its owner may enter, or mount it with \
                 -o allow_open_vault",
            ),
            Self::OpenVault(how) => write!(f, "other users may enter the vault: {how}"),
            Self::ReadOnly => f.write_str("the volume is mounted read-only"),
            Self::TooLarge => f.write_str("the file would be too large"),
            Self::NotFound => f.write_str("no such file or directory"),
            Self::Stale => f.write_str("the file no longer exists"),
            Self::Oversized(what) => write!(f, "{what} is larger than the format has room for"),
            Self::NotEmpty => f.write_str("the directory is not empty"),
            Self::Random => f.write_str("the system gave no randomness"),
            Self::NoProc => f.write_str(
                "/proc is not mounted here, and nothing in a vault is opened without it: \
                 'mount -t proc proc /proc' first",
            ),
            Self::Unanchored(why) => {
                write!(f, "nothing outside the vault can remember this session: {why}")
            }
        }
    }
}

impl std::error::Error for VolumeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Keystore(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Errno> for VolumeError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno)
    }
}

impl From<io::Error> for VolumeError {
    fn from(error: io::Error) -> Self {
        Self::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl From<EnvelopeError> for VolumeError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Malformed(what) | EnvelopeError::NotAuthentic(what) => {
                Self::Tampered(what)
            }
            EnvelopeError::Newer(what) => Self::Newer(what),
            EnvelopeError::Oversized(what) => Self::Oversized(what),
            EnvelopeError::Crypto(error) => error.into(),
        }
    }
}

impl From<CryptoError> for VolumeError {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::NotAuthentic => Self::Tampered("data"),
            _ => Self::Random,
        }
    }
}
