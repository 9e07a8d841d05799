//! One directory of the vault, held open, with the keys of its names.
//!
//! The descriptor is kept twice: in the file `.kmsfs.dir` and in an attribute of the directory. Of the
//! valid copies, the newest one made for this place counts, and the other is repaired from it. A
//! directory whose descriptor cannot be used still opens: what is in it is shown under foreign names,
//! and can be removed, but nothing can be made in it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{fgetxattr, fstat};
use rustix::io::Errno;

use super::descriptor::{Copies, DescriptorBytes, repair};
use super::dir_locks::DirLocks;
use super::dir_rules::{Authority, DirAnchor, Expected, LiveAuthority};
use super::inode::Link;
use crate::envelope::{DirDescriptor, DirKeys, EnvelopeError};
use crate::id::{DirId, KeyId};
use crate::volume::backing::beneath::BackingName;
use crate::volume::keys::keyring::Keyring;
use crate::volume::model::dir_policy::DirPolicy;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::misplaced::Misplaced;

/// The attribute by which a directory gives its children their ACL.
const DEFAULT_ACL: &str = "system.posix_acl_default";
const WHAT: &str = "directory descriptor";

/// An open directory of the vault.
#[derive(Debug)]
pub(in crate::volume) struct Dir {
    ino: u64,
    fd: OwnedFd,
    names: Names,
    says: Arc<LiveAuthority>,
    expected: Expected,
    link: Option<Link>,
    rules: Mutex<Option<CreateRules>>,
    copies: Copies,
}

/// What is wrong with the copies of a descriptor of which one is good. An older copy is no flaw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::volume) struct Flaws {
    /// The file is missing, or not authentic.
    pub(in crate::volume) file: bool,
    /// The attribute is not authentic.
    pub(in crate::volume) attribute: bool,
    /// There is no attribute, or one of another length.
    pub(in crate::volume) no_attribute: bool,
}

/// What opening a directory takes.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct Opener<'a> {
    pub(in crate::volume) keyring: &'a Keyring,
    pub(in crate::volume) anchor: &'a DirAnchor,
    pub(in crate::volume) locks: &'a DirLocks,
    /// Nothing is repaired.
    pub(in crate::volume) read_only: bool,
}

/// What a directory decides about the files made in it.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct CreateRules {
    /// It has a default ACL, which takes the place of the umask.
    pub default_acl: bool,
    /// It is setgid: children get its group.
    pub setgid: bool,
}

#[derive(Debug)]
enum Names {
    Readable { descriptor: Box<DirDescriptor>, keys: Box<DirKeys> },
    KeyUnusable(KeyId, DirId),
    Misplaced(Misplaced),
    Broken,
}

impl Dir {
    /// Takes over the open directory `fd`, shown as inode `ino`, and opens its descriptor.
    ///
    /// *Locks*: the copies are read while nobody renames the directory, so that they fit what is
    /// expected of them.
    ///
    /// # Errors
    /// Those of the keystore that are not about this one key, and of a disk that cannot be read; a
    /// bad descriptor is no error.
    pub(in crate::volume) fn open(
        ino: u64,
        fd: OwnedFd,
        copies: Copies,
        expected: Expected,
        opener: Opener<'_>,
    ) -> Result<Self> {
        let names = open_names((ino, &fd), copies, &expected, opener)?;
        if matches!(names, Names::Broken) {
            log::error!("the directory with inode {ino} has no usable descriptor");
        }
        let says = Arc::new(LiveAuthority::new(names.authority()));
        Ok(Self { ino, fd, names, says, expected, link: None, rules: Mutex::new(None), copies })
    }

    /// Tells the log that it is out of its place, once that is certain.
    pub(in crate::volume) fn sound_alarm(&self) {
        if let Names::Misplaced(why) = self.names {
            log::error!("the directory with inode {}: {why}", self.ino);
        }
    }

    /// The same, found by way of `link`.
    pub(in crate::volume) fn found_by(self, link: Link) -> Self {
        Self { link: Some(link), ..self }
    }

    /// The same, marked as one that does not count where it is.
    pub(in crate::volume) fn refused(self, why: Misplaced) -> Self {
        log::error!("the directory with inode {}: {why}", self.ino);
        let says = Arc::new(LiveAuthority::new(Authority::None));
        Self { names: Names::Misplaced(why), says, ..self }
    }

    /// The entry by which it was found; `None` for the root, and for one that was removed.
    pub(in crate::volume) fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// True if opening it under `above` would give the same.
    pub(in crate::volume) fn fits_below(&self, above: &Self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| above.authority().expects(link.name.bytes()) == self.expected)
    }

    /// True if it was verified as the entry `name` of the directory `parent`.
    pub(in crate::volume) fn was_found_at(&self, parent: u64, name: &BackingName) -> bool {
        self.link.as_ref().is_some_and(|link| link.parent == parent && link.name == *name)
    }

    /// The inode number.
    pub(in crate::volume) fn ino(&self) -> u64 {
        self.ino
    }

    /// The keys of the names in it.
    ///
    /// # Errors
    /// `KeyUnusable`; `Misplaced` if it is not in its place; `Tampered` if neither copy of the
    /// descriptor is good.
    pub(in crate::volume) fn keys(&self) -> Result<&DirKeys> {
        self.readable().map(|(_, keys)| keys)
    }

    /// What the directory says of itself, as it counts in its place.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub(in crate::volume) fn descriptor(&self) -> Result<&DirDescriptor> {
        self.readable().map(|(descriptor, _)| descriptor)
    }

    fn readable(&self) -> Result<(&DirDescriptor, &DirKeys)> {
        match &self.names {
            Names::Readable { descriptor, keys } => Ok((descriptor, keys)),
            Names::KeyUnusable(key, _) => Err(VolumeError::KeyUnusable(*key)),
            Names::Misplaced(why) => Err(VolumeError::Misplaced(*why)),
            Names::Broken => Err(VolumeError::Tampered(WHAT)),
        }
    }

    /// Why it is not in its place, if it is not.
    pub(in crate::volume) fn misplaced(&self) -> Option<Misplaced> {
        match self.names {
            Names::Misplaced(why) => Some(why),
            _ => None,
        }
    }

    /// What was wrong with its descriptor when it was opened.
    pub(in crate::volume) fn flaws(&self) -> Flaws {
        self.flaws_of(self.copies)
    }

    /// The same of these copies.
    pub(in crate::volume) fn flaws_of(&self, copies: Copies) -> Flaws {
        let Ok(keys) = self.keys() else { return Flaws::default() };
        let good = |bytes: DescriptorBytes| DirDescriptor::verify(&bytes, keys).is_ok();
        Flaws {
            file: !copies.file.is_some_and(good),
            attribute: copies.attribute.is_some_and(|bytes| !good(bytes)),
            no_attribute: copies.attribute.is_none(),
        }
    }

    /// What was expected of it where it was found.
    pub(in crate::volume) fn expected(&self) -> &Expected {
        &self.expected
    }

    /// What it says of the directories in it.
    pub(in crate::volume) fn authority(&self) -> Authority {
        self.says.now()
    }

    /// The same, for whoever asks later without holding the directory open.
    pub(in crate::volume) fn says(&self) -> &Arc<LiveAuthority> {
        &self.says
    }

    /// Reads the descriptor again: it is the same directory, but what it says may have changed
    /// since it was opened.
    ///
    /// # Errors
    /// As [`Self::keys`].
    pub(in crate::volume) fn read_again(&self) -> Result<DirDescriptor> {
        let (old, keys) = self.readable()?;
        let copies = Copies::read(&self.fd);
        let authentic = copies.all().filter_map(|bytes| DirDescriptor::verify(&bytes, keys).ok());
        let newest = authentic.max_by_key(|copy| copy.sequence);
        newest
            .filter(|copy| copy.sequence >= old.sequence)
            .ok_or(copies.fault(VolumeError::Tampered(WHAT)))
    }

    /// What it decides about the files made in it.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn rules(&self) -> Result<CreateRules> {
        let mut rules = self.rules.lock();
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
    pub(in crate::volume) fn forget_rules(&self) {
        *self.rules.lock() = None;
    }
}

impl Names {
    fn authority(&self) -> Authority {
        match self {
            Self::Readable { descriptor, .. } => {
                Authority::Verified(descriptor.dir, DirPolicy::of(descriptor))
            }
            Self::KeyUnusable(_, claimed) => Authority::Locked(*claimed),
            Self::Misplaced(_) | Self::Broken => Authority::None,
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_names(
    (ino, fd): (u64, &OwnedFd),
    copies: Copies,
    expected: &Expected,
    opener: Opener<'_>,
) -> Result<Names> {
    let claims = |bytes: DescriptorBytes| DirDescriptor::parse(&bytes).ok().map(|c| (bytes, c));
    let mut found: Vec<_> = copies.all().filter_map(claims).collect();
    // After a crash in a rename the file may be ahead of the directory's name: what was made for
    // this place comes first, and then what is newer.
    found.sort_by_key(|(_, claims)| std::cmp::Reverse((expected.suits(claims), claims.sequence)));
    for (bytes, claims) in &found {
        match open_copy(bytes, claims, opener.keyring) {
            Ok((stored, keys)) => {
                let descriptor = match expected.admit(&stored, opener.anchor) {
                    Ok(descriptor) => descriptor.into(),
                    Err(why) => return Ok(Names::Misplaced(why)),
                };
                if matches!(expected, Expected::At(..)) {
                    opener.anchor.note(&stored);
                }
                if !opener.read_only {
                    repair(fd, bytes, copies, opener.locks.watch(ino));
                }
                return Ok(Names::Readable { descriptor, keys: keys.into() });
            }
            Err(VolumeError::KeyUnusable(key) | VolumeError::WrappedElsewhere(key)) => {
                return Ok(Names::KeyUnusable(key, claims.dir));
            }
            Err(VolumeError::Tampered(_) | VolumeError::Newer(_)) => {}
            Err(error) => return Err(error),
        }
    }
    copies.failed.map_or(Ok(Names::Broken), |error| Err(error.into()))
}

fn open_copy(
    bytes: &DescriptorBytes,
    claims: &DirDescriptor,
    keyring: &Keyring,
) -> Result<(DirDescriptor, DirKeys)> {
    let keys = keyring.open_dir(claims)?;
    let descriptor = DirDescriptor::verify(bytes, &keys).map_err(|error| match error {
        EnvelopeError::Crypto(error) => VolumeError::from(error),
        _ => VolumeError::Tampered(WHAT),
    })?;
    Ok((descriptor, keys))
}
