//! One directory of the vault, held open, with the keys of its names.
//!
//! The descriptor is kept twice: in the file `.kmsfs.dir` and in an attribute of the directory.
//! Whichever is valid and newer counts, and the other is repaired from it. A directory whose
//! descriptor cannot be used still opens: what is in it is shown under foreign names, and can be
//! removed, but nothing can be made in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, XattrFlags, fgetxattr, fsetxattr, fstat};
use rustix::io::Errno;

use super::beneath::{self, Name};
use super::error::{Result, VolumeError};
use super::keyring::Keyring;
use super::own_file;
use crate::envelope::{DIR_FILE, DIR_XATTR, DirDescriptor, DirKeys, EnvelopeError, RECORD_LEN};
use crate::id::KeyId;

/// The attribute by which a directory gives its children their ACL.
const DEFAULT_ACL: &str = "system.posix_acl_default";
const WHAT: &str = "directory descriptor";
/// The file in every directory that holds its descriptor.
pub(super) const FILE: Name<'static> = Name::literal(DIR_FILE);

/// An open directory of the vault.
#[derive(Debug)]
pub(super) struct Dir {
    ino: u64,
    fd: OwnedFd,
    names: Names,
    rules: Mutex<Option<CreateRules>>,
}

/// What a directory decides about the files made in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CreateRules {
    /// It has a default ACL, which takes the place of the umask.
    pub default_acl: bool,
    /// It is setgid: children get its group.
    pub setgid: bool,
}

#[derive(Debug)]
enum Names {
    Readable { descriptor: Box<DirDescriptor>, keys: Box<DirKeys> },
    KeyUnusable(KeyId),
    Broken,
}

impl Dir {
    /// Takes over the open directory `fd`, shown as inode `ino`, and opens its descriptor.
    ///
    /// # Errors
    /// Only those of the keystore that are not about this one key; a bad descriptor is no error.
    pub(super) fn open(ino: u64, fd: OwnedFd, keyring: &Keyring) -> Result<Self> {
        let names = open_names(&fd, keyring)?;
        Ok(Self { ino, fd, names, rules: Mutex::new(None) })
    }

    /// The inode number.
    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    /// The keys of the names in it.
    ///
    /// # Errors
    /// `KeyUnusable`, or `Tampered` if neither copy of the descriptor is good.
    pub(super) fn keys(&self) -> Result<&DirKeys> {
        match &self.names {
            Names::Readable { keys, .. } => Ok(keys),
            Names::KeyUnusable(key) => Err(VolumeError::KeyUnusable(*key)),
            Names::Broken => Err(VolumeError::Tampered(WHAT)),
        }
    }

    /// What the directory says of itself.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub(super) fn descriptor(&self) -> Result<&DirDescriptor> {
        match &self.names {
            Names::Readable { descriptor, .. } => Ok(descriptor),
            Names::KeyUnusable(key) => Err(VolumeError::KeyUnusable(*key)),
            Names::Broken => Err(VolumeError::Tampered(WHAT)),
        }
    }

    /// What it decides about the files made in it.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(super) fn rules(&self) -> Result<CreateRules> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = *rules {
            return Ok(rules);
        }
        let setgid = fstat(&self.fd)?.st_mode & libc::S_ISGID != 0;
        let default_acl = match fgetxattr(&self.fd, DEFAULT_ACL, &mut [0_u8; 64]) {
            Ok(length) => length > 0,
            Err(error) => error == Errno::RANGE,
        };
        let found = CreateRules { default_acl, setgid };
        *rules = Some(found);
        Ok(found)
    }

    /// Asks the backing directory again next time: its mode or ACL was changed.
    pub(super) fn forget_rules(&self) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Writes both copies of a new directory's descriptor.
///
/// The attribute is left out where the backing filesystem has none.
///
/// # Errors
/// Those of the backing filesystem.
pub(super) fn write_descriptor(dir: impl AsFd, bytes: &[u8; RECORD_LEN]) -> Result<()> {
    let dir = dir.as_fd();
    write_attribute(dir, bytes)?;
    write_file(dir, bytes)
}

/// The same for a directory that was just made, which nobody can have anything in: if there is a
/// descriptor, it is another directory.
///
/// # Errors
/// `Io(EXIST)`; those of the backing filesystem.
pub(super) fn write_first_descriptor(dir: impl AsFd, bytes: &[u8; RECORD_LEN]) -> Result<()> {
    let dir = dir.as_fd();
    let file = beneath::create_file(dir, FILE, Mode::RUSR | Mode::WUSR)?;
    own_file::write_all(file.as_fd(), bytes)?;
    write_attribute(dir, bytes)
}

/// Writes the descriptor file again from the attribute, after a removal that took the file away
/// and then failed.
///
/// # Errors
/// Those of the backing filesystem.
pub(super) fn restore_descriptor(dir: &OwnedFd) -> Result<()> {
    let bytes = read_attribute(dir).ok_or(VolumeError::Lost(WHAT))?;
    write_file(dir, &bytes)
}

fn write_attribute(dir: BorrowedFd<'_>, bytes: &[u8; RECORD_LEN]) -> Result<()> {
    match fsetxattr(dir, DIR_XATTR, bytes, XattrFlags::empty()) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSPC) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn write_file(dir: impl AsFd, bytes: &[u8; RECORD_LEN]) -> Result<()> {
    let dir = dir.as_fd();
    match own_file::to_write(dir, FILE)? {
        Some(file) => Ok(own_file::write_all(file.as_fd(), bytes)?),
        None => Ok(own_file::replace(dir, FILE, bytes)?),
    }
}

fn open_names(fd: &OwnedFd, keyring: &Keyring) -> Result<Names> {
    let (file, attribute) = (read_file(fd), read_attribute(fd));
    let mut copies: Vec<_> = [file, attribute].into_iter().flatten().collect();
    copies.sort_by_key(|bytes| {
        std::cmp::Reverse(DirDescriptor::parse(bytes).map_or(0, |d| d.sequence))
    });
    for bytes in &copies {
        match open_copy(bytes, keyring) {
            Ok((descriptor, keys)) => {
                repair(fd, bytes, (file, attribute));
                return Ok(Names::Readable { descriptor: descriptor.into(), keys: keys.into() });
            }
            Err(VolumeError::KeyUnusable(key) | VolumeError::WrappedElsewhere(key)) => {
                return Ok(Names::KeyUnusable(key));
            }
            Err(VolumeError::Tampered(_) | VolumeError::Newer(_)) => {}
            Err(error) => return Err(error),
        }
    }
    log::error!("a directory has no usable descriptor; run kmsfs fsck");
    Ok(Names::Broken)
}

fn open_copy(bytes: &[u8; RECORD_LEN], keyring: &Keyring) -> Result<(DirDescriptor, DirKeys)> {
    let keys = keyring.open_dir(&DirDescriptor::parse(bytes)?)?;
    let descriptor = DirDescriptor::verify(bytes, &keys).map_err(|error| match error {
        EnvelopeError::Crypto(error) => VolumeError::from(error),
        _ => VolumeError::Tampered(WHAT),
    })?;
    Ok((descriptor, keys))
}

/// Brings the copy that is missing, damaged or older in line with `good`, if the vault lets us.
fn repair(
    fd: &OwnedFd,
    good: &[u8; RECORD_LEN],
    (file, attribute): (Option<[u8; RECORD_LEN]>, Option<[u8; RECORD_LEN]>),
) {
    if file.as_ref() != Some(good) && write_file(fd, good).is_ok() {
        log::warn!("repaired the descriptor file of a directory from its attribute");
    }
    if attribute.as_ref() != Some(good) && write_attribute(fd.as_fd(), good).is_ok() {
        log::info!("wrote the descriptor attribute of a directory again");
    }
}

fn read_file(dir: &OwnedFd) -> Option<[u8; RECORD_LEN]> {
    own_file::read(dir, FILE, (RECORD_LEN, WHAT)).ok().flatten()?.try_into().ok()
}

fn read_attribute(dir: &OwnedFd) -> Option<[u8; RECORD_LEN]> {
    let mut bytes = [0; RECORD_LEN];
    (fgetxattr(dir, DIR_XATTR, &mut bytes) == Ok(RECORD_LEN)).then_some(bytes)
}
