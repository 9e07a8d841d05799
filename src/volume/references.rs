//! Which KMS keys and materials a vault still needs: read from its headers, without any key.

use std::collections::HashMap;
use std::path::Path;

use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;
use serde::Serialize;

use super::error::Result;
use super::rewrap::read_slots;
use super::setup::open_root;
use super::walk::{Role, Walk};
use super::{Volume, dir, lender, own_file};
use crate::envelope::{DIR_XATTR, DirDescriptor, RECORD_LEN, Recipient, may_be_encoded};
use crate::id::{KeyId, MaterialId, VolumeId};

/// How many files and directories of a volume name which material.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Files, by key and material. A file counts once for each material that a slot names.
    pub files: HashMap<(KeyId, MaterialId), u64>,
    /// Directories, and the volume itself, likewise.
    pub directories: HashMap<(KeyId, MaterialId), u64>,
    /// Files and directories whose header or descriptor could not be read.
    pub unreadable: u64,
}

/// What a key is needed for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Needed {
    /// Files that cannot be read without it.
    pub files: u64,
    /// Directories whose names cannot be read without it.
    pub directories: u64,
}

impl References {
    /// Counts what the vault in `path` refers to. Works while it is mounted.
    ///
    /// # Errors
    /// `NotAVolume`; those of the backing filesystem.
    pub fn scan(path: &Path) -> Result<(VolumeId, Self)> {
        let descriptor = Volume::peek(path)?;
        let mut found = Self::default();
        count(&mut found.directories, [&descriptor.recipient]);
        let mut walk = Walk::new(&open_root(path)?)?;
        while let Some(visit) = walk.step().transpose() {
            let Ok(visit) = visit else {
                found.unreadable += 1;
                continue;
            };
            let copies = dir_copies(&visit.fd);
            // The root has no name. What has one that nobody here made is foreign: no key's business.
            let ours = visit.name().is_none_or(|name| may_be_encoded(name.bytes()));
            if copies.is_empty() && ours {
                found.unreadable += 1;
            }
            count(&mut found.directories, copies.iter().map(|copy| &copy.recipient));
            for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
                let fd = match visit.open(entry, OFlags::RDONLY) {
                    Ok(fd) => fd,
                    Err(error) => {
                        // A mount hides the file, and what that refers to.
                        let hidden = error == Errno::XDEV;
                        found.unreadable += u64::from(hidden || visit.stat(entry)?.is_some());
                        continue;
                    }
                };
                let slots = read_slots(&fd)?;
                if slots.is_empty() && may_be_encoded(entry.name.bytes()) && fstat(&fd)?.st_size > 0
                {
                    found.unreadable += 1;
                }
                count(&mut found.files, slots.iter().flat_map(|slot| slot.recipients.iter()));
            }
        }
        Ok((descriptor.volume, found))
    }

    /// What needs any material of `key`.
    pub fn of_key(&self, key: KeyId) -> Needed {
        self.sum(|(k, _)| *k == key)
    }

    /// What needs this material.
    pub fn of_material(&self, material: MaterialId) -> Needed {
        self.sum(|(_, m)| *m == material)
    }

    fn sum(&self, wanted: impl Fn(&(KeyId, MaterialId)) -> bool) -> Needed {
        let total = |counts: &HashMap<(KeyId, MaterialId), u64>| {
            counts.iter().filter(|(id, _)| wanted(id)).map(|(_, n)| n).sum()
        };
        Needed { files: total(&self.files), directories: total(&self.directories) }
    }
}

fn count<'a>(
    counts: &mut HashMap<(KeyId, MaterialId), u64>,
    recipients: impl IntoIterator<Item = &'a Recipient>,
) {
    let mut named: Vec<_> = recipients.into_iter().map(|r| (r.key, r.material)).collect();
    named.sort_unstable();
    named.dedup();
    for id in named {
        *counts.entry(id).or_default() += 1;
    }
}

/// The copies of a directory's descriptor that can be read, as claims.
pub(super) fn dir_copies(fd: &std::os::fd::OwnedFd) -> Vec<DirDescriptor> {
    let mut attribute = [0; RECORD_LEN];
    let get = || rustix::fs::fgetxattr(fd, DIR_XATTR, &mut attribute);
    let length = lender::with_access(fd, get);
    let attribute = (length == Ok(RECORD_LEN)).then_some(attribute);
    let file = own_file::read(fd, dir::FILE, (RECORD_LEN, "directory descriptor"));
    let file = file.ok().flatten().and_then(|bytes| bytes.try_into().ok());
    let copies = [file, attribute].into_iter().flatten();
    copies.filter_map(|bytes: [u8; RECORD_LEN]| DirDescriptor::parse(&bytes).ok()).collect()
}
