//! What the keystore refuses, and under which AWS exception name.

pub(in crate::keystore) mod access;
pub(in crate::keystore) mod custom_store;
pub(in crate::keystore) mod parse;
mod reason;
pub(in crate::keystore) mod replica;

pub use reason::{ExportProblem, InUse, KeyFileProblem, Quota, SecondName};

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::crypto::CryptoError;
use crate::id::{KeyId, MaterialId, VolumeId};
use crate::keystore::error::access::AccessError;
use crate::keystore::error::custom_store::KeyStoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::id::{AliasName, KeyArn};
use crate::keystore::model::slot::SlotId;
use crate::keystore::model::state::KeyState;
use crate::keystore::policy::PolicyError;
use crate::keystore::token::TokenError;

/// The one error of the layer. No variant carries key material, plaintext or a passphrase.
#[derive(Debug)]
pub enum KeystoreError {
    /// No such key in this keystore.
    KeyNotFound(KeyId),
    /// No such alias in this keystore.
    AliasNotFound(AliasName),
    /// The text names no key: not an id, an ARN or an alias.
    InvalidKeyRef(String),
    /// The key is disabled.
    Disabled(KeyId),
    /// The key's state forbids the operation.
    InvalidState {
        /// The key.
        key: KeyId,
        /// The state it is in.
        state: KeyState,
    },
    /// CancelKeyDeletion of a key that is not scheduled for deletion.
    NotPendingDeletion(KeyId),
    /// The alias is taken.
    AliasExists(AliasName),
    /// The text cannot be an alias name.
    InvalidAliasName(String),
    /// A quota is used up.
    LimitExceeded(Quota),
    /// The ciphertext was made under another key than the one named.
    IncorrectKey,
    /// The ciphertext is malformed, was changed, or was made with another encryption context.
    InvalidCiphertext,
    /// The ciphertext names material that this key does not have: retired, or never here.
    UnknownMaterial {
        /// The key.
        key: KeyId,
        /// The material.
        material: MaterialId,
    },
    /// The key's usage or kind does not go with the operation or its algorithm.
    InvalidKeyUsage(String),
    /// The signature is not one of this message under this key.
    InvalidSignature,
    /// The code is not that of this message under this key.
    InvalidMac,
    /// The key material is not of the kind that the key has, or not the material that is expected.
    IncorrectKeyMaterial(String),
    /// No material was imported that a rotation could make the current one.
    NothingToRotate(KeyId),
    /// The import token is not one of this key.
    InvalidImportToken,
    /// The import token was valid for a day, which is over.
    ExpiredImportToken,
    /// An argument is out of range.
    Validation(String),
    /// A tag breaks the rules for tags.
    Tag(String),
    /// The operation does not exist for this kind of key.
    UnsupportedOperation(String),
    /// Something is wrong with a policy, a grant or an access key.
    Access(AccessError),
    /// The caller may not do this.
    AccessDenied(String),
    /// The caller only asked whether it would succeed, and it would.
    DryRun,
    /// Material that is in use, or might be, is not retired.
    MaterialInUse(InUse),
    /// There is no file.
    Missing(PathBuf),
    /// There is a file already; it is never overwritten.
    Exists(PathBuf),
    /// This file is left of a keystore that is not there any more.
    Leftover(PathBuf),
    /// The keystore cannot be used with the WAL that lies beside it, and is whole without it.
    StrangeWal {
        /// The keystore.
        path: PathBuf,
        /// What is wrong with both together.
        found: Box<KeystoreError>,
    },
    /// The file can be reached under two names, which SQLite takes for two files.
    SecondName {
        /// The keystore, its audit log, or a file beside one of them.
        path: PathBuf,
        /// What kind of name.
        how: SecondName,
    },
    /// The file is something else than a keystore.
    NotAKeystore(PathBuf),
    /// The keystore was written by a newer kmsfs.
    NewerSchema {
        /// The keystore.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest version this program knows.
        supported: i64,
    },
    /// Another process or machine holds the keystore for longer than the busy timeout.
    Locked(PathBuf),
    /// No slot opens with what was given.
    WrongUnlock {
        /// The keystore.
        path: PathBuf,
        /// What was tried.
        tried: &'static str,
        /// The slots that exist, in words.
        slots: Vec<String>,
    },
    /// A key file that cannot be used.
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: KeyFileProblem,
    },
    /// A row does not authenticate: it was changed by something else than kmsfs.
    Tampered {
        /// The table.
        table: &'static str,
        /// The row's primary key.
        row: String,
    },
    /// Rows were removed, added or replaced by older ones by something else than kmsfs.
    RowSetTampered,
    /// No such slot.
    SlotNotFound(SlotId),
    /// The last slot is never removed.
    LastSlot,
    /// No such volume is registered.
    VolumeNotFound(VolumeId),
    /// An export file that is not one, was changed, or has another passphrase.
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: ExportProblem,
    },
    /// A file operation failed.
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done, as in "cannot ... `path`".
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// SQLite reported a failure.
    Database {
        /// The keystore.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// The filesystem is full or read-only.
    NoRoom {
        /// The keystore.
        path: PathBuf,
        /// SQLite's words, and what to do.
        detail: String,
    },
    /// An operation could not be written to the audit log, which is required. The reason is given.
    AuditUnwritable(String),
    /// A change was made, but its end could not be written to the audit log, which is required and
    /// has its announcement. The reason is given.
    AuditUnfinished(String),
    /// Records of the audit log that should be removed are not as they were written.
    AuditDamaged {
        /// The first that is not, or is missing.
        record: u64,
        /// What is wrong.
        problem: String,
    },
    /// A primitive failed.
    Crypto(CryptoError),
    /// A PKCS#11 token failed.
    Token(TokenError),
    /// The token that keeps the key does not answer.
    KeyUnavailable {
        /// The key.
        key: KeyId,
        /// What the token said.
        why: TokenError,
    },
    /// A custom key store does not do what it is asked.
    KeyStore(KeyStoreError),
    /// A multi-Region key does not do what it is asked, or does not arrive.
    Replica(ReplicaError),
}

impl KeystoreError {
    /// The AWS KMS exception that this error is on the wire.
    pub fn aws_name(&self) -> &'static str {
        match self {
            Self::KeyNotFound(_) | Self::AliasNotFound(_) | Self::InvalidKeyRef(_) => {
                "NotFoundException"
            }
            Self::Disabled(_) => "DisabledException",
            Self::InvalidState { .. }
            | Self::NotPendingDeletion(_)
            | Self::NothingToRotate(_)
            | Self::MaterialInUse(_) => "KMSInvalidStateException",
            Self::AliasExists(_) => "AlreadyExistsException",
            Self::InvalidAliasName(_) => "InvalidAliasNameException",
            Self::LimitExceeded(_) => "LimitExceededException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::InvalidCiphertext | Self::UnknownMaterial { .. } => "InvalidCiphertextException",
            Self::InvalidKeyUsage(_) => "InvalidKeyUsageException",
            Self::InvalidSignature => "KMSInvalidSignatureException",
            Self::InvalidMac => "KMSInvalidMacException",
            Self::IncorrectKeyMaterial(_) => "IncorrectKeyMaterialException",
            Self::InvalidImportToken => "InvalidImportTokenException",
            Self::ExpiredImportToken => "ExpiredImportTokenException",
            Self::Validation(_) => "ValidationException",
            Self::Tag(_) => "TagException",
            Self::UnsupportedOperation(_) => "UnsupportedOperationException",
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::Access(error) => error.aws_name(),
            Self::DryRun => "DryRunOperationException",
            Self::Locked(_) => "DependencyTimeoutException",
            Self::KeyUnavailable { .. } => "KeyUnavailableException",
            Self::KeyStore(error) => error.aws_name(),
            Self::Replica(error) => error.aws_name(),
            Self::Token(error) if error.is_absence() => "KeyUnavailableException",
            Self::Token(TokenError::NotAuthentic) => "InvalidCiphertextException",
            Self::Missing(_)
            | Self::Exists(_)
            | Self::Leftover(_)
            | Self::SecondName { .. }
            | Self::StrangeWal { .. }
            | Self::NotAKeystore(_)
            | Self::NewerSchema { .. }
            | Self::WrongUnlock { .. }
            | Self::KeyFile { .. }
            | Self::Tampered { .. }
            | Self::RowSetTampered
            | Self::SlotNotFound(_)
            | Self::LastSlot
            | Self::VolumeNotFound(_)
            | Self::Export { .. }
            | Self::Io { .. }
            | Self::Database { .. }
            | Self::NoRoom { .. }
            | Self::AuditUnwritable(_)
            | Self::AuditUnfinished(_)
            | Self::AuditDamaged { .. }
            | Self::Crypto(_)
            | Self::Token(_) => "KMSInternalException",
        }
    }
}

impl fmt::Display for KeystoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyNotFound(key) => write!(f, "Key '{}' does not exist", KeyArn(*key)),
            Self::AliasNotFound(alias) => write!(f, "Alias {} is not found.", alias.arn()),
            Self::InvalidKeyRef(text) if text.starts_with("arn:") => {
                write!(f, "Invalid arn {text}")
            }
            Self::InvalidKeyRef(text) => write!(f, "Invalid keyId '{text}'"),
            Self::Disabled(key) => write!(f, "{} is disabled.", KeyArn(*key)),
            Self::InvalidState { key, state } => {
                write!(f, "{} is {}.", KeyArn(*key), state.in_words())
            }
            Self::NotPendingDeletion(key) => {
                write!(f, "{} is not pending deletion.", KeyArn(*key))
            }
            Self::AliasExists(alias) => {
                write!(f, "An alias with the name {} already exists", alias.arn())
            }
            Self::InvalidAliasName(text) => write!(
                f,
                "invalid alias name '{text}': 'alias/' and 1 to 250 of a-z A-Z 0-9 : / _ - are \
                 expected, not starting with 'alias/aws/'"
            ),
            Self::LimitExceeded(quota) => quota.fmt(f),
            Self::IncorrectKey => f.write_str(
                "The key ID in the request does not identify a CMK that can perform this operation.",
            ),
            Self::InvalidCiphertext => {
                f.write_str("the ciphertext is not valid for its key and this encryption context")
            }
            Self::UnknownMaterial { key, material } => write!(
                f,
                "{} has no key material {material}: it was retired, or belongs to another keystore",
                KeyArn(*key)
            ),
            Self::NothingToRotate(key) => write!(
                f,
                "No available key material pending rotation for the key: {}.",
                KeyArn(*key)
            ),
            Self::InvalidSignature => f.write_str("the signature is not valid"),
            Self::InvalidMac => f.write_str("the message authentication code is not valid"),
            Self::InvalidImportToken => {
                f.write_str("the import token is invalid or belongs to another key")
            }
            Self::ExpiredImportToken => {
                f.write_str("the import token is expired: get new parameters for import")
            }
            Self::Validation(what)
            | Self::InvalidKeyUsage(what)
            | Self::IncorrectKeyMaterial(what)
            | Self::Tag(what)
            | Self::UnsupportedOperation(what)
            | Self::AccessDenied(what) => f.write_str(what),
            Self::MaterialInUse(why) => why.fmt(f),
            Self::Access(error) => error.fmt(f),
            Self::DryRun => {
                f.write_str("The request would have succeeded, but the DryRun option is set.")
            }
            _ => self.fmt_store(f),
        }
    }
}

impl KeystoreError {
    /// The half of `Display` that is about the file, not about a KMS operation.
    fn fmt_store(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(
                f,
                "no keystore at '{}': make one with 'kmsfs keystore init', or name another",
                path.display()
            ),
            Self::Exists(path) => {
                write!(f, "'{}' exists already and is never overwritten", path.display())
            }
            Self::Leftover(path) => write!(
                f,
                "'{}' was left by a keystore that is not there any more, and may hold its newest \
                 keys: move it along with that keystore, or out of the way if it is not needed, \
                 and try again",
                path.display()
            ),
            Self::SecondName { path, how } => write!(f, "'{}' {how}", path.display()),
            Self::StrangeWal { path, found } => write!(
                f,
                "{found}. Nothing was changed, and without '{0}-wal', which lies beside it, the \
                 keystore is whole: if it was put there by hand, end what uses it, move {0}-wal and \
                 {0}-shm out of the way, and try again",
                path.display()
            ),
            Self::NotAKeystore(path) => {
                write!(f, "'{}' is not a kmsfs keystore", path.display())
            }
            Self::NewerSchema { path, found, supported } => write!(
                f,
                "the keystore '{}' has schema {found}, this kmsfs knows up to {supported}: \
                 upgrade kmsfs",
                path.display()
            ),
            Self::Locked(path) => write!(
                f,
                "the keystore '{}' is held by another process, or by another machine if it lies \
                 on a network filesystem: stop that one and try again",
                path.display()
            ),
            Self::WrongUnlock { path, tried, slots } => write!(
                f,
                "the {tried} does not open the keystore '{}': it has {}; check that it belongs \
                 to this keystore or use another slot",
                path.display(),
                slots.join(", ")
            ),
            Self::KeyFile { path, problem } => {
                write!(f, "key file '{}': {problem}", path.display())
            }
            Self::Tampered { table, row } => write!(
                f,
                "row {row} of table {table} was changed by something else than kmsfs: restore \
                 the keystore from a backup; 'kmsfs keystore verify' shows all"
            ),
            Self::RowSetTampered => f.write_str(
                "rows of the keystore were removed, added or put back by something else than kmsfs: \
                 restore it from a backup; 'kmsfs keystore verify' shows what is wrong",
            ),
            Self::SlotNotFound(slot) => write!(f, "the keystore has no slot {slot}"),
            Self::LastSlot => {
                f.write_str("the last unlock slot is not removed: add another one first")
            }
            Self::VolumeNotFound(volume) => {
                write!(f, "the keystore knows no volume {volume}")
            }
            Self::Export { path, problem } => {
                write!(f, "export file '{}': {problem}", path.display())
            }
            Self::Io { path, doing, source } => {
                write!(f, "cannot {doing} '{}': {source}", path.display())
            }
            Self::Database { path, detail } | Self::NoRoom { path, detail } => {
                write!(f, "keystore '{}': {detail}", path.display())
            }
            Self::AuditUnwritable(reason) => write!(f, "the audit log cannot be written: {reason}"),
            Self::AuditUnfinished(reason) => write!(
                f,
                "it was done, but the audit log, which is required, has only the attempt: {reason}"
            ),
            Self::AuditDamaged { record, problem } => write!(
                f,
                "the audit log is not as it was written, from record {record} on ({problem}): \
                 nothing was removed; 'kmsfs audit verify' shows all"
            ),
            Self::Crypto(error) => write!(f, "{error}"),
            Self::Token(error) => write!(f, "{error}"),
            Self::KeyUnavailable { key, why } => {
                write!(f, "{} is unavailable: {why}", KeyArn(*key))
            }
            Self::KeyStore(error) => write!(f, "{error}"),
            Self::Replica(error) => write!(f, "{error}"),
            _ => f.write_str(self.aws_name()),
        }
    }
}

impl std::error::Error for KeystoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::KeyFile { problem: KeyFileProblem::Io(source), .. } => {
                Some(source)
            }
            Self::Crypto(error) => Some(error),
            Self::Token(error) | Self::KeyUnavailable { why: error, .. } => Some(error),
            Self::KeyStore(error) => Some(error),
            Self::Access(error) => Some(error),
            Self::Replica(error) => Some(error),
            Self::StrangeWal { found, .. } => Some(found.as_ref()),
            _ => None,
        }
    }
}

impl From<ReplicaError> for KeystoreError {
    fn from(error: ReplicaError) -> Self {
        Self::Replica(error)
    }
}

impl From<KeyStoreError> for KeystoreError {
    fn from(error: KeyStoreError) -> Self {
        Self::KeyStore(error)
    }
}

impl From<TokenError> for KeystoreError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<CryptoError> for KeystoreError {
    fn from(error: CryptoError) -> Self {
        Self::Crypto(error)
    }
}

impl From<AccessError> for KeystoreError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl From<PolicyError> for KeystoreError {
    fn from(error: PolicyError) -> Self {
        if error.is_too_long() {
            Self::LimitExceeded(Quota::PolicyBytes)
        } else {
            Self::Access(AccessError::MalformedPolicy(error))
        }
    }
}
