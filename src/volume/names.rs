//! Plaintext names and backing names.
//!
//! Three kinds of backing names exist in a directory: those that the directory's key made, those
//! that belong to the vault itself (hidden), and foreign ones, which somebody put there or which
//! the key cannot read now. Foreign ones are shown as `kmsfs.foreign.<backing name>`, so that they
//! can be looked at and removed.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::beneath::{BackingName, is_name};
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::own_file;
use crate::crypto::hash::sha256;
use crate::envelope::{EncodedName, LONG_PREFIX, SIDECAR_SUFFIX, is_sidecar};

/// What the names of foreign entries start with. Nothing can be created under such a name.
pub(super) const FOREIGN_PREFIX: &[u8] = b"kmsfs.foreign.";
/// The longest name that a user can give, in bytes.
pub(super) const NAME_MAX: usize = 255;

/// What the names that belong to the vault itself start with.
const HIDDEN_PREFIX: &[u8] = b".kmsfs";
/// Starts the shown form of a foreign name that would be too long with the prefix before it.
const HASHED: &[u8] = b"~";
/// The longest text of a sidecar: 255 bytes of name with 16 of authentication, as base64.
const SIDECAR_MAX: usize = 362;

/// What a name of the mount stands for in the backing directory.
#[derive(Debug, Clone)]
pub(super) struct EntryName {
    /// The entry in the backing directory.
    pub entry: BackingName,
    /// For a long name, what has to stand beside it.
    pub sidecar: Option<Sidecar>,
}

/// The file that holds a long name.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    /// Its name in the backing directory.
    pub name: BackingName,
    /// The encrypted long name.
    pub contents: String,
}

impl EntryName {
    /// The entry that is, or could be, shown as `name` in `dir`.
    ///
    /// # Errors
    /// `NameTooLong`; `NotFound` for a foreign name that is none; what [`Dir::keys`] gives.
    pub(super) fn existing(dir: &Dir, name: &[u8]) -> Result<Self> {
        match name.strip_prefix(FOREIGN_PREFIX) {
            Some(raw) => Self::foreign(dir, raw),
            None => Self::own(dir, name),
        }
    }

    /// The entry for a new name in `dir`.
    ///
    /// # Errors
    /// `ReservedName`, `NameTooLong`, and what [`Dir::keys`] gives.
    pub(super) fn new(dir: &Dir, name: &[u8]) -> Result<Self> {
        if name.starts_with(FOREIGN_PREFIX) {
            return Err(VolumeError::ReservedName);
        }
        Self::own(dir, name)
    }

    fn own(dir: &Dir, name: &[u8]) -> Result<Self> {
        if name.len() > NAME_MAX {
            return Err(VolumeError::NameTooLong);
        }
        if !is_name(name) {
            return Err(Errno::INVAL.into());
        }
        let backing =
            |name: String| BackingName::new(name.into_bytes()).ok_or(VolumeError::NameTooLong);
        Ok(match dir.keys()?.encode_name(name) {
            EncodedName::Inline(entry) => Self { entry: backing(entry)?, sidecar: None },
            EncodedName::Long { entry, sidecar, contents } => Self {
                entry: backing(entry)?,
                sidecar: Some(Sidecar { name: backing(sidecar)?, contents }),
            },
        })
    }

    /// What follows the prefix comes from a user: `..` after it would be the directory above.
    fn foreign(dir: &Dir, raw: &[u8]) -> Result<Self> {
        let entry = match raw.strip_prefix(HASHED) {
            Some(_) => super::readdir::find_raw(dir, |entry| hashed(entry.bytes()) == raw)?,
            None => BackingName::new(raw),
        };
        // A name that the key does read is shown under that name only.
        let entry = entry.filter(|e| !is_hidden(e.bytes()) && decode(dir, e).is_none());
        Ok(Self { entry: entry.ok_or(VolumeError::NotFound)?, sidecar: None })
    }
}

/// True for names that belong to the vault itself and are never shown.
pub(super) fn is_hidden(entry: &[u8]) -> bool {
    entry.starts_with(HIDDEN_PREFIX) || is_sidecar(entry)
}

/// The name under which a backing entry is shown.
pub(super) fn shown_name(dir: &Dir, entry: &BackingName) -> Vec<u8> {
    if let Some(name) = decode(dir, entry) {
        return name;
    }
    let raw = entry.bytes();
    let raw = if FOREIGN_PREFIX.len() + raw.len() > NAME_MAX { hashed(raw) } else { raw.into() };
    [FOREIGN_PREFIX, &raw].concat()
}

fn decode(dir: &Dir, entry: &BackingName) -> Option<Vec<u8>> {
    let keys = dir.keys().ok()?;
    let name = if entry.bytes().starts_with(LONG_PREFIX.as_bytes()) {
        keys.decode_name(&read_sidecar(dir, entry)?).ok()?
    } else {
        keys.decode_name(entry.bytes()).ok()?
    };
    // The sidecar must be this entry's own, and nobody can have made a name like these.
    let made = is_name(&name) && keys.encode_name(&name).entry().as_bytes() == entry.bytes();
    made.then_some(name)
}

/// The text of the sidecar of a long name, as far as there is one.
pub(super) fn read_sidecar(dir: impl AsFd, entry: &BackingName) -> Option<Vec<u8>> {
    own_file::read(dir, &entry.with(SIDECAR_SUFFIX)?, (SIDECAR_MAX, "long name")).ok()?
}

/// Writes the sidecar of a long name, before the entry itself is made.
///
/// What stands there is removed first: a sidecar that a crash left behind, or what somebody put
/// there, which may be a further name of any file.
///
/// # Errors
/// Those of the backing filesystem.
pub(super) fn write_sidecar(dir: &Dir, sidecar: &Sidecar) -> Result<()> {
    let file = own_file::fresh(dir, &sidecar.name)?;
    Ok(own_file::write_all(file.as_fd(), sidecar.contents.as_bytes())?)
}

fn hashed(entry: &[u8]) -> Vec<u8> {
    let digest = sha256(&[entry]);
    let mut text = HASHED.to_vec();
    text.extend(digest.iter().take(16).flat_map(|byte| format!("{byte:02x}").into_bytes()));
    text
}
