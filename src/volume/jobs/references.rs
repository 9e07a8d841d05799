//! Which KMS keys and materials a vault still needs: read from its headers, without any key.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Advice, OFlags, fadvise, fstat, syncfs};
use rustix::io::Errno;
use serde::Serialize;

use super::descent::Descent;
use super::walk::{Role, Visit, Walk};
use crate::envelope::{Recipient, VolumeDescriptor, may_be_encoded};
use crate::id::{KeyId, MaterialId, VolumeId};
use crate::volume::backing::beneath;
use crate::volume::backing::handle::open_noatime;
use crate::volume::backing::root::open_root;
use crate::volume::engine::Volume;
use crate::volume::files::unopened::read_slots;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::dir_copies;
use crate::volume::session::lock::Session;

/// How many files and directories of a volume name which material.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Files, by key and material. A file counts once for each material that a slot names.
    pub files: HashMap<(KeyId, MaterialId), u64>,
    /// Directories, and the volume itself, likewise.
    pub directories: HashMap<(KeyId, MaterialId), u64>,
    /// Files and directories whose header or descriptor could not be read, and paths below which some
    /// were not seen.
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

/// Where headers are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// From wherever the system has them.
    Cache,
    /// As they are on the disk.
    Disk,
}

impl References {
    /// Counts what the vault in `path` refers to. Works while it is mounted; what is renamed meanwhile
    /// may then be missed.
    ///
    /// # Errors
    /// `NotAVolume`; those of the backing filesystem.
    pub fn scan(path: &Path) -> Result<(VolumeId, Self)> {
        Self::scan_from((&open_root(path)?, path), Source::Cache)
    }

    fn scan_from((root, path): (&OwnedFd, &Path), source: Source) -> Result<(VolumeId, Self)> {
        let copies = Volume::peek_at_copies(root, path)?;
        let volume = copies.first().ok_or_else(|| VolumeError::NotAVolume(path.into()))?.volume;
        let mut found = Self::of_volume(&copies);
        let mut walk = Walk::new(root)?;
        while let Some(visit) = walk.step().transpose() {
            match visit {
                Ok(visit) => found.look_into(&visit, source)?,
                Err(_) => found.unreadable += 1,
            }
        }
        let unseen =
            walk.take_mounted().len() + walk.take_lost().len() + walk.take_nameless().len();
        found.unreadable += unseen as u64 + u64::from(walk.has_vanished());
        Ok((volume, found))
    }

    /// As [`Self::scan`], of the vault that is open as `root` and was found at `path`, while nobody may
    /// change it: nothing is missed, and what is counted is what a power cut would leave.
    ///
    /// # Errors
    /// `InUse` if somebody may; as [`Self::scan`].
    pub fn scan_still(root: &OwnedFd, path: &Path) -> Result<(VolumeId, Self)> {
        let _held = Session::begin(beneath::reopen_dir(root)?, false)?;
        syncfs(root)?;
        let found = Self::scan_from((root, path), Source::Disk)?;
        // Between the two syncs, others may have removed files from outside.
        syncfs(root)?;
        Ok(found)
    }

    /// The older copy counts as well: it is there for the day when the newer one is damaged.
    fn of_volume(copies: &[VolumeDescriptor]) -> Self {
        let mut found = Self::default();
        count(&mut found.directories, copies.iter().map(|copy| &copy.recipient));
        found
    }

    fn look_into(&mut self, visit: &Visit, source: Source) -> Result<()> {
        let copies = dir_copies(&visit.fd);
        // The root has no name. What has a name that nobody here made is foreign, and needs no key.
        let ours = visit.name().is_none_or(|name| may_be_encoded(name.bytes()));
        if copies.is_empty() && ours {
            self.unreadable += 1;
        }
        count(&mut self.directories, copies.iter().map(|copy| &copy.recipient));
        for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
            let opened = match visit.hold(entry) {
                // The walk knows of what has gone.
                Ok(None) => continue,
                Ok(Some(held)) => open_noatime(OFlags::RDONLY, |flags| held.open_file(flags)).ok(),
                Err(_) => None,
            };
            let Some(fd) = opened else {
                self.unreadable += 1;
                continue;
            };
            if source == Source::Disk {
                fadvise(&fd, 0, None, Advice::DontNeed)?;
            }
            let slots = read_slots(&fd)?;
            if slots.is_empty() && may_be_encoded(entry.name.bytes()) && fstat(&fd)?.st_size > 0 {
                self.unreadable += 1;
            }
            count(&mut self.files, slots.iter().flat_map(|slot| slot.recipients.iter()));
        }
        Ok(())
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

impl Volume {
    /// Counts what this volume refers to, also what is renamed meanwhile. `progress` may stop it.
    ///
    /// *Crash*: no power cut after this brings back what was not counted. What it could have brought
    /// back is replaced durably by the last sync; and a header that only the system's cache has, because
    /// writing it to the disk failed earlier, is not the one that is looked at.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the KMS.
    pub fn references(
        &self,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<References> {
        // From here on new wraps are under the current material, of which another process may have
        // made another a moment ago.
        self.keyring.service().refresh()?;
        // And those that were made before are where they are found.
        self.settle_wraps();
        // Pages that wait to be written could not be read from the disk.
        self.sync_everything()?;
        let mut found = References::of_volume(&self.descriptor_copies()?);
        let mut descent = Descent::new(self)?;
        let mut scanned = 0;
        while let Some(visited) = descent.step().transpose() {
            match visited {
                Ok((visit, _)) => {
                    found.look_into(&visit, Source::Disk)?;
                    scanned += visit.entries.len() as u64;
                }
                Err(_) => found.unreadable += 1,
            }
            if progress(scanned).is_break() {
                return Err(Errno::INTR.into());
            }
        }
        found.unreadable += descent.missed().len() as u64;
        // Files that were unlinked before the walk reached them, and are still open.
        for file in self.files.nameless() {
            let slots = read_slots(file.backing_fd())?;
            count(&mut found.files, slots.iter().flat_map(|slot| slot.recipients.iter()));
        }
        self.sync_everything()?;
        Ok(found)
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
