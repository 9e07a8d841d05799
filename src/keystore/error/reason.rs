//! The reasons that some refusals give.

use std::fmt;
use std::io;

use crate::id::{MaterialId, VolumeId};
use crate::keystore::policy::MAX_POLICY;

/// The quotas of AWS KMS that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// Keys in a keystore.
    Keys,
    /// Aliases of one key.
    AliasesPerKey,
    /// On-demand rotations of one key.
    OnDemandRotations,
    /// Custom key stores.
    KeyStores,
    /// Grants of one key.
    GrantsPerKey,
    /// Bytes of a policy.
    PolicyBytes,
}

impl Quota {
    /// The largest number allowed.
    pub const fn limit(self) -> usize {
        match self {
            Self::Keys => 100_000,
            Self::AliasesPerKey => 50,
            Self::OnDemandRotations => 25,
            Self::KeyStores => 10,
            Self::GrantsPerKey => 50_000,
            Self::PolicyBytes => MAX_POLICY,
        }
    }
}

/// Why material is not retired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUse {
    /// It is the current material: rotate first.
    Current(MaterialId),
    /// This many headers refer to it: re-wrap first.
    Referenced(u64),
    /// This many headers could not be read, so they may refer to it.
    Unreadable(u64),
    /// A known volume was not looked at.
    NotScanned(VolumeId),
    /// Vaults on other hosts, which nobody here knows, may need it.
    OtherHosts,
    /// It has encrypted for programs, or may have, and where that is nobody here knows.
    Programs,
}

/// How a file comes to have two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondName {
    /// It is a hard link.
    Linked,
    /// It is mounted by itself, not with its directory.
    Mounted,
}

/// Why a key file cannot be used.
#[derive(Debug)]
pub enum KeyFileProblem {
    /// It cannot be read, or created.
    Io(io::Error),
    /// Others can read it; its mode is given.
    Exposed(u32),
    /// It has fewer than 32 bytes.
    Short(usize),
    /// It is larger than any key file.
    Long,
}

/// Why an export cannot be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportProblem {
    /// Not an export of a keystore.
    NotAnExport,
    /// Written by a newer kmsfs.
    Newer(u8),
    /// Wrong passphrase, or the file was changed.
    NotAuthentic,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::Keys => "keys in a keystore",
            Self::AliasesPerKey => "aliases of a key",
            Self::OnDemandRotations => "on-demand rotations of a key",
            Self::KeyStores => "custom key stores",
            Self::GrantsPerKey => "grants of a key",
            Self::PolicyBytes => "bytes in a policy",
        };
        write!(f, "the limit of {} {what} is reached", self.limit())
    }
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current(material) => {
                write!(f, "key material {material} is the current one: rotate the key first")
            }
            Self::Referenced(count) => write!(
                f,
                "{count} headers still refer to this key material: run 'kmsfs rewrap' first"
            ),
            Self::Unreadable(count) => write!(
                f,
                "{count} headers could not be read and may refer to this key material: run \
                 'kmsfs fsck' first"
            ),
            Self::NotScanned(volume) => write!(
                f,
                "volume {volume} was not scanned for this key material: attach it, or forget it"
            ),
            Self::OtherHosts => f.write_str(
                "vaults on other hosts, which are not known here, may need this key material",
            ),
            Self::Programs => f.write_str(
                "programs may have ciphertexts, which are not known here, of this key material",
            ),
        }
    }
}

impl fmt::Display for SecondName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linked => {
                "has a second name (a hard link, as 'cp -al' makes), and changes under one name would \
                 destroy those under the other: remove that name; or end what uses the keystore, and \
                 give this name a file of its own: cp -a FILE FILE.own && mv FILE.own FILE"
            }
            Self::Mounted => {
                "is mounted as a single file, without what lies beside it, and changes under one name \
                 would destroy those under the other: mount its directory instead"
            }
        })
    }
}

impl fmt::Display for KeyFileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Exposed(mode) => {
                write!(f, "others can read it (mode {:04o}): run 'chmod 600' on it", mode & 0o7777)
            }
            Self::Short(len) => write!(f, "it has {len} bytes, at least 32 are needed"),
            Self::Long => f.write_str("it has more than 1 MiB and is no key file"),
        }
    }
}

impl fmt::Display for ExportProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnExport => f.write_str("not an export of a keystore"),
            Self::Newer(version) => {
                write!(f, "it has export format {version}: upgrade kmsfs")
            }
            Self::NotAuthentic => f.write_str("wrong passphrase, or the file was changed"),
        }
    }
}
