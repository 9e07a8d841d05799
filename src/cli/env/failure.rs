//! Errors of the layers below as exit codes and advice: every variant, here and nowhere else.

use std::path::Path;

use rustix::io::Errno;

use crate::cli::report::exit::{CliError, Exit};

use super::mounts::mountinfo;
use crate::keystore::{
    AccessError, ExportProblem, KeyFileProblem, KeyState, KeyStoreError, Keystore, KeystoreError,
    ReplicaError, TokenError,
};
use crate::volume::{Exposure, VolumeError};

impl From<KeystoreError> for CliError {
    fn from(error: KeystoreError) -> Self {
        let failure = Self::new(keystore_exit(&error), error.to_string());
        match keystore_advice(&error) {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }
}

fn keystore_exit(error: &KeystoreError) -> Exit {
    use KeystoreError as E;
    match error {
        E::KeyNotFound(_)
        | E::AliasNotFound(_)
        | E::UnknownMaterial { .. }
        | E::SlotNotFound(_)
        | E::VolumeNotFound(_) => Exit::KeyUnknown,
        E::KeyUnavailable { .. } => Exit::KeyUnusable,
        E::KeyStore(error) => key_store_exit(error),
        E::Replica(error) => replica_exit(error),
        E::Disabled(_)
        | E::InvalidState { .. }
        | E::NotPendingDeletion(_)
        | E::NothingToRotate(_) => Exit::KeyUnusable,
        E::InvalidKeyRef(_) | E::InvalidAliasName(_) | E::Validation(_) | E::Tag(_) => Exit::Usage,
        E::AliasExists(_)
        | E::LimitExceeded(_)
        | E::UnsupportedOperation(_)
        | E::InvalidKeyUsage(_)
        | E::IncorrectKeyMaterial(_)
        | E::InvalidImportToken
        | E::ExpiredImportToken
        | E::Exists(_)
        | E::Crypto(_)
        | E::IncorrectKey => Exit::General,
        E::InvalidCiphertext | E::InvalidSignature | E::InvalidMac | E::AuditDamaged { .. } => {
            Exit::Damage
        }
        E::AccessDenied(_)
        | E::DryRun
        | E::MaterialInUse(_)
        | E::LastSlot
        | E::Leftover(_)
        | E::SecondName { .. } => Exit::Refused,
        E::Missing(_) => Exit::KeystoreMissing,
        E::StrangeWal { .. }
        | E::NotAKeystore(_)
        | E::NewerSchema { .. }
        | E::Locked(_)
        | E::Tampered { .. }
        | E::RowSetTampered
        | E::AuditUnwritable(_)
        | E::AuditUnfinished(_)
        | E::Database { .. } => Exit::KeystoreUnusable,
        E::NoRoom { .. } => Exit::NoSpace,
        E::WrongUnlock { .. } => Exit::WrongSecret,
        E::Token(error) => token_exit(error),
        E::Access(error) => access_exit(error),
        E::KeyFile { problem, .. } => key_file_exit(problem),
        E::Export { problem, .. } => match problem {
            ExportProblem::NotAuthentic => Exit::WrongSecret,
            ExportProblem::NotAnExport | ExportProblem::Newer(_) => Exit::KeystoreUnusable,
        },
        E::Io { source, .. } => io_exit(Errno::from_io_error(source)),
    }
}

fn key_store_exit(error: &KeyStoreError) -> Exit {
    match error {
        KeyStoreError::NotFound(_) => Exit::KeyUnknown,
        KeyStoreError::NameInUse(_) | KeyStoreError::TokenInUse(_) => Exit::General,
        KeyStoreError::InvalidState { .. } => Exit::KeyUnusable,
        KeyStoreError::HasKeys(..) => Exit::Refused,
        KeyStoreError::Module(error)
        | KeyStoreError::TokenNotFound(error)
        | KeyStoreError::TokenConfiguration(error) => token_exit(error),
    }
}

fn access_exit(error: &AccessError) -> Exit {
    match error {
        AccessError::MalformedPolicy(_)
        | AccessError::InvalidPrincipal(_)
        | AccessError::InvalidGrantId(_)
        | AccessError::InvalidGrantToken => Exit::Usage,
        AccessError::Lockout => Exit::Refused,
        AccessError::PolicyNotFound(_)
        | AccessError::GrantNotFound(_)
        | AccessError::AccessKeyNotFound(_) => Exit::KeyUnknown,
    }
}

fn replica_exit(error: &ReplicaError) -> Exit {
    match error {
        ReplicaError::NotMultiRegion(_)
        | ReplicaError::IsReplica { .. }
        | ReplicaError::Superseded { .. } => Exit::KeyUnusable,
        ReplicaError::Exists { .. } | ReplicaError::NotExpected => Exit::General,
        ReplicaError::NoReplica { .. } => Exit::KeyUnknown,
        ReplicaError::Malformed(_) => Exit::Damage,
        ReplicaError::NotPrimary { .. } | ReplicaError::Stranger { .. } => Exit::Refused,
    }
}

fn token_exit(error: &TokenError) -> Exit {
    match error {
        TokenError::WrongPin(_) | TokenError::PinUnusable(..) => Exit::WrongSecret,
        TokenError::NotAuthentic => Exit::Damage,
        TokenError::Module { .. }
        | TokenError::NotFound(_)
        | TokenError::Another(..)
        | TokenError::Ambiguous(_)
        | TokenError::Unsupported(..)
        | TokenError::KeyMissing(_)
        | TokenError::Unavailable(..) => Exit::KeyUnusable,
    }
}

fn key_file_exit(problem: &KeyFileProblem) -> Exit {
    match problem {
        KeyFileProblem::Io(error) => match io_exit(Errno::from_io_error(error)) {
            Exit::NoSpace => Exit::NoSpace,
            _ => Exit::NoSecret,
        },
        KeyFileProblem::Exposed(_) | KeyFileProblem::Short(_) | KeyFileProblem::Long => {
            Exit::WrongSecret
        }
    }
}

/// Only where the message itself does not say what to do.
fn keystore_advice(error: &KeystoreError) -> Option<&'static str> {
    use KeystoreError as E;
    match error {
        E::KeyNotFound(_) | E::AliasNotFound(_) => Some("'kmsfs key list' shows the keys"),
        E::InvalidKeyRef(_) => Some("name a key by its id, its ARN or alias/NAME"),
        E::Disabled(_) => Some("'kmsfs key enable' allows its use again"),
        E::InvalidState { .. } => Some("'kmsfs key describe' shows its state"),
        E::NotAKeystore(_) => Some("name another with --keystore, or restore it from a backup"),
        E::Missing(_) => Some("'kmsfs mount --create' makes all that is missing"),
        E::Io { source, .. } | E::KeyFile { problem: KeyFileProblem::Io(source), .. } => {
            room_advice(Errno::from_io_error(source))
        }
        E::Access(AccessError::PolicyNotFound(_)) => {
            Some("'kmsfs principal list' shows the policies of users and groups")
        }
        E::Access(AccessError::GrantNotFound(_) | AccessError::InvalidGrantId(_)) => {
            Some("'kmsfs grant list' shows the grants of a key")
        }
        E::Access(AccessError::AccessKeyNotFound(_)) => {
            Some("'kmsfs access-key list' shows the access keys")
        }
        E::AuditUnfinished(_) => {
            Some("look what is there before you do it again; what it would have shown is not shown")
        }
        E::SlotNotFound(_) => Some("'kmsfs keystore slots list' shows the slots"),
        _ => None,
    }
}

/// An error of a volume, as one about the vault or the file that was worked on.
pub(in crate::cli) fn volume(what: &Path, error: &VolumeError) -> CliError {
    let named = match error {
        VolumeError::NotAVolume(_) | VolumeError::Keystore(_) => error.to_string(),
        VolumeError::Io(errno) => CliError::io(what.display(), &(*errno).into()).what,
        _ => format!("{}: {error}", what.display()),
    };
    let mut failure = CliError::new(volume_exit(error), named);
    match error {
        VolumeError::KeyUnusable(_) => failure.advise(
            "'kmsfs key list' shows its state; if it is not in the list, name the keystore that has it",
        ),
        VolumeError::WrappedElsewhere(_) => failure.advise("name its endpoint with --kms URL"),
        VolumeError::Kms(words) if words.contains("MissingAuthenticationToken") => {
            failure.exit = Exit::NoSecret;
            failure.advise(NEEDS_ACCESS_KEY)
        }
        VolumeError::KmsUnreachable(_) => {
            failure.advise("is the service running, and the address given with --kms right?")
        }
        VolumeError::Io(Errno::ROFS) | VolumeError::ReadOnly => {
            failure.advise("'kmsfs mount --read-only' reads a vault on a read-only medium")
        }
        VolumeError::Io(Errno::NOSPC | Errno::DQUOT) => {
            failure.advise("make room on the filesystem of the vault, and try again")
        }
        VolumeError::Tampered("wrapped key") => failure.advise(
            "'kmsfs fsck' lists everything; a KMS at an endpoint also says so of a key whose \
             material it has retired",
        ),
        VolumeError::Tampered(_) => failure.advise("'kmsfs fsck' lists everything that is damaged"),
        VolumeError::Misplaced(_) => failure.advise(
            "if it was exchanged or put there, remove it or move it back; if it is there on \
             purpose, 'kmsfs adopt DIR' takes it in",
        ),
        VolumeError::OpenVault(how) => {
            failure.advise(format!("{}; --allow-open-vault mounts it as it is", closing(what, *how)))
        }
        VolumeError::Twin(_) => failure.advise(
            "remove one of the two; to have a copy, copy the files inside the mount",
        ),
        VolumeError::InUse => failure.advise(match mountinfo::of_vault(what) {
            Ok(Some(mount)) => format!(
                "it is mounted at {0}; 'kmsfs umount' ends that, and 'mount --bind {0} DIR', as root, \
                 shows it at a second place too",
                mount.mountpoint.display()
            ),
            _ => "'kmsfs status' shows mounts, 'kmsfs umount' ends one".to_owned(),
        }),
        _ => failure,
    }
}

/// The same with the keystore at hand, if there is one: it knows whether a key is missing or only
/// switched off.
pub(in crate::cli) fn volume_of(
    keystore: Option<&Keystore>,
    what: &Path,
    error: &VolumeError,
) -> CliError {
    let (VolumeError::KeyUnusable(key), Some(keystore)) = (error, keystore) else {
        return volume(what, error);
    };
    let what_is = what.display();
    match keystore.key_state(*key) {
        Err(KeystoreError::KeyNotFound(_)) => CliError::new(
            Exit::KeyUnknown,
            format!("{what_is}: its key {key} is not in this keystore"),
        )
        .advise("name the keystore that has it with --keystore FILE"),
        Ok(KeyState::Enabled) => CliError::new(
            Exit::KeyUnknown,
            format!("{what_is}: this keystore has key {key}, but not the material that is needed"),
        )
        .advise(
            "it was retired, or this is an older copy of the keystore: restore a backup that has it",
        ),
        _ => volume(what, error),
    }
}

fn room_advice(errno: Option<Errno>) -> Option<&'static str> {
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            Some("nothing was changed: make room on its filesystem, and try again")
        }
        Some(Errno::ROFS) => Some("its filesystem is read-only: remount it writable"),
        _ => None,
    }
}

fn volume_exit(error: &VolumeError) -> Exit {
    use VolumeError as E;
    match error {
        E::Io(errno) => io_exit(Some(*errno)),
        E::Tampered(_) | E::Misplaced(_) | E::Lost(_) | E::ForeignKey { .. } => Exit::Damage,
        E::KeyUnusable(_) | E::Denied(_) | E::WrappedElsewhere(_) | E::KmsDenied(_) => {
            Exit::KeyUnusable
        }
        E::KmsUnreachable(_) => Exit::KmsUnreachable,
        E::Kms(_) => Exit::General,
        E::Keystore(error) => keystore_exit(error),
        E::Newer(_) => Exit::VaultFormat,
        E::NotAVolume(_) => Exit::NotAVault,
        E::InUse => Exit::VaultInUse,
        E::ReadOnly => Exit::NoSpace,
        E::LinkedElsewhere
        | E::FormerKeys
        | E::Twin(_)
        | E::WouldOpenVault
        | E::OpenVault(_)
        | E::Unanchored(_) => Exit::Refused,
        E::NameTooLong
        | E::ReservedName
        | E::CrossPolicy
        | E::TooLarge
        | E::NotFound
        | E::Stale
        | E::NotEmpty
        | E::Oversized(_)
        | E::Random
        | E::NoProc => Exit::General,
    }
}

fn io_exit(errno: Option<Errno>) -> Exit {
    match errno {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS) => Exit::NoSpace,
        _ => Exit::General,
    }
}

/// How to keep other users out of a vault.
pub(in crate::cli) fn closing(vault: &Path, exposed: Exposure) -> String {
    let place = vault.display();
    match exposed {
        Exposure::Mode(_) => format!(
            "whoever owns a directory in it can exchange what others keep there: 'chmod 700 {place}', \
             or, if they use the mount, move it below a directory of mode 0700"
        ),
        Exposure::Owner(_) => {
            "that user can exchange what is in it: let that user mount it, 'chown' \
             it, or move it below a directory of mode 0700 of your own"
                .into()
        }
    }
}

/// What to do when a KMS asks for a signature.
pub(in crate::cli) const NEEDS_ACCESS_KEY: &str = "add --kms-credentials FILE; \
     'kmsfs access-key create --for-volumes' makes one where the keystore is";
