//! Plaintext names and backing names.
//!
//! Three kinds of backing names exist in a directory: those that the directory's key made, those
//! that belong to the vault itself (hidden), and foreign ones, which somebody put there or which
//! the key cannot read now. Foreign ones are shown as `kmsfs.foreign.<backing name>`, so that they
//! can be looked at and removed.

use std::os::fd::AsFd;

use rustix::fs::fdatasync;
use rustix::io::Errno;

use super::dir::Dir;
use crate::envelope::{
    EncodedName, FOREIGN_PREFIX, ForeignName, NAME_MAX, SIDECAR_SUFFIX, foreign_name, is_hidden,
    is_name,
};
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::listing::find_raw;
use crate::volume::backing::own_file::{self, KeptTime};
use crate::volume::model::error::{Result, VolumeError};

/// The longest text of a sidecar: 255 bytes of name with 16 of authentication, as base64.
const SIDECAR_MAX: usize = 362;

/// What a name of the mount stands for in the backing directory.
#[derive(Debug, Clone)]
pub(in crate::volume) struct EntryName {
    /// The entry in the backing directory.
    pub entry: BackingName,
    /// For a long name, what has to stand beside it.
    pub sidecar: Option<Sidecar>,
}

/// The file that holds a long name.
#[derive(Debug, Clone)]
pub(in crate::volume) struct Sidecar {
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
    pub(in crate::volume) fn existing(dir: &Dir, name: &[u8]) -> Result<Self> {
        match ForeignName::parse(name) {
            Some(foreign) => Self::foreign(dir, name, foreign),
            None => Self::own(dir, name),
        }
    }

    /// The entry for a new name in `dir`.
    ///
    /// # Errors
    /// `ReservedName`, `NameTooLong`, and what [`Dir::keys`] gives.
    pub(in crate::volume) fn new(dir: &Dir, name: &[u8]) -> Result<Self> {
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
    fn foreign(dir: &Dir, name: &[u8], foreign: ForeignName<'_>) -> Result<Self> {
        let entry = match foreign {
            ForeignName::Hashed => find_raw(dir, |entry| foreign_name(entry.bytes()) == name)?,
            ForeignName::Entry(raw) => BackingName::new(raw),
        };
        // A name that the key does read is shown under that name only.
        let entry = entry.filter(|e| !is_hidden(e.bytes()) && decode(dir, e).is_none());
        Ok(Self { entry: entry.ok_or(VolumeError::NotFound)?, sidecar: None })
    }
}

/// The name under which a backing entry is shown.
pub(in crate::volume) fn shown_name(dir: &Dir, entry: &BackingName) -> Vec<u8> {
    decode(dir, entry).unwrap_or_else(|| foreign_name(entry.bytes()))
}

fn decode(dir: &Dir, entry: &BackingName) -> Option<Vec<u8>> {
    dir.keys().ok()?.name_of(entry.bytes(), || read_sidecar(dir, entry))
}

/// The text of the sidecar of a long name, as far as there is one.
pub(in crate::volume) fn read_sidecar(dir: impl AsFd, entry: &BackingName) -> Option<Vec<u8>> {
    own_file::read(dir, &entry.with(SIDECAR_SUFFIX)?, (SIDECAR_MAX, "long name")).ok()?
}

/// Writes the sidecar of a long name, durably.
///
/// What stands there is removed first: a sidecar that a crash left behind, or what somebody put
/// there, which may be a further name of any file.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_sidecar(dir: &Dir, sidecar: &Sidecar) -> Result<()> {
    write_and(dir, sidecar, || ())
}

/// The same for an entry that is there: a user does not see it. Locks: the caller claims the directory.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn rewrite_sidecar(dir: &Dir, sidecar: &Sidecar) -> Result<()> {
    let kept = KeptTime::new(dir.as_fd(), || true);
    write_and(dir, sidecar, || kept.put_back())
}

fn write_and(dir: &Dir, sidecar: &Sidecar, made: impl FnOnce()) -> Result<()> {
    let file = own_file::fresh(dir, &sidecar.name);
    made();
    let file = file?;
    own_file::write_all(file.as_fd(), sidecar.contents.as_bytes())?;
    Ok(fdatasync(&file)?)
}
