//! Plaintext names and backing names.
//!
//! Three kinds of backing names exist in a directory: those that the directory's key made, those
//! that belong to the vault itself (hidden), and foreign ones, which somebody put there or which
//! the key cannot read now. Foreign ones are shown as `kmsfs.foreign.<backing name>`, so that they
//! can be looked at and removed.

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read, write};

use super::dir::Dir;
use super::error::{Result, VolumeError};
use crate::crypto::hash::sha256;
use crate::envelope::{EncodedName, LONG_PREFIX, is_sidecar};

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

/// The backing name of an entry.
#[derive(Debug, Clone)]
pub(super) struct BackingName {
    /// The entry in the backing directory.
    pub entry: Box<[u8]>,
    /// For a long name, what has to stand beside it.
    pub sidecar: Option<Sidecar>,
}

/// The file that holds a long name.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    /// Its name in the backing directory.
    pub name: String,
    /// The encrypted long name.
    pub contents: String,
}

impl BackingName {
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
        Ok(match dir.keys()?.encode_name(name) {
            EncodedName::Inline(entry) => Self { entry: entry.into_bytes().into(), sidecar: None },
            EncodedName::Long { entry, sidecar, contents } => Self {
                entry: entry.into_bytes().into(),
                sidecar: Some(Sidecar { name: sidecar, contents }),
            },
        })
    }

    fn foreign(dir: &Dir, raw: &[u8]) -> Result<Self> {
        let entry = match raw.strip_prefix(HASHED) {
            Some(_) => super::readdir::find_raw(dir, |entry| hashed(entry) == raw)?,
            None => Some(raw.to_vec()),
        };
        // A name that the key does read is shown under that name only.
        let entry = entry.filter(|e| !e.is_empty() && !is_hidden(e) && decode(dir, e).is_none());
        let entry = entry.ok_or(VolumeError::NotFound)?;
        Ok(Self { entry: entry.into(), sidecar: None })
    }
}

/// True for names that belong to the vault itself and are never shown.
pub(super) fn is_hidden(entry: &[u8]) -> bool {
    entry.starts_with(HIDDEN_PREFIX) || is_sidecar(entry)
}

/// The name under which a backing entry is shown.
pub(super) fn shown_name(dir: &Dir, entry: &[u8]) -> Vec<u8> {
    if let Some(name) = decode(dir, entry) {
        return name;
    }
    let raw =
        if FOREIGN_PREFIX.len() + entry.len() > NAME_MAX { hashed(entry) } else { entry.into() };
    [FOREIGN_PREFIX, &raw].concat()
}

fn decode(dir: &Dir, entry: &[u8]) -> Option<Vec<u8>> {
    let keys = dir.keys().ok()?;
    let name = if entry.starts_with(LONG_PREFIX.as_bytes()) {
        keys.decode_name(&read_sidecar(dir, entry)?).ok()?
    } else {
        keys.decode_name(entry).ok()?
    };
    // The sidecar must be this entry's own, and nobody can have made a name like these.
    let usual = !name.is_empty() && name.len() <= NAME_MAX && !name.contains(&b'/');
    (usual && keys.encode_name(&name).entry().as_bytes() == entry).then_some(name)
}

fn read_sidecar(dir: &Dir, entry: &[u8]) -> Option<Vec<u8>> {
    let name = [entry, crate::envelope::SIDECAR_SUFFIX.as_bytes()].concat();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = openat(dir, name, flags, Mode::empty()).ok()?;
    let mut contents = vec![0; SIDECAR_MAX + 1];
    let length = read(&file, &mut contents).ok()?;
    contents.truncate(length);
    Some(contents)
}

/// Writes the sidecar of a long name, before the entry itself is made.
///
/// One that a crash left behind is written over: its name is the hash of its contents.
///
/// # Errors
/// Those of the backing filesystem.
pub(super) fn write_sidecar(dir: &Dir, sidecar: &Sidecar) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, &*sidecar.name, flags, Mode::from_raw_mode(0o600))?;
    if write(&file, sidecar.contents.as_bytes())? != sidecar.contents.len() {
        return Err(Errno::NOSPC.into());
    }
    Ok(())
}

fn hashed(entry: &[u8]) -> Vec<u8> {
    let digest = sha256(&[entry]);
    let mut text = HASHED.to_vec();
    text.extend(digest.iter().take(16).flat_map(|byte| format!("{byte:02x}").into_bytes()));
    text
}
