//! Taking in a directory that is not in its place: the explicit step after which it is.
//!
//! Whoever asks for it says that the directory is meant to be there, with all that is below it.
//! Nothing below has to change: it says that it belongs into this directory.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{fstat, fsync};
use rustix::io::Errno;

use super::walk::Walk;
use crate::envelope::{DirDescriptor, Places};
use crate::id::{DirId, KeyId};
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::misplaced::Misplaced;
use crate::volume::namespace::descriptor::dir_copies;
use crate::volume::namespace::descriptor::{Copies, sync_file, write_descriptor};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::{Above, Expected};
use crate::volume::namespace::inode::{Link, Whereabouts};

/// What taking in a directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adoption {
    /// Why it cannot be used as it is.
    pub why: Misplaced,
    /// Its id.
    pub dir: DirId,
    /// The KMS key of its new files.
    pub policy: KeyId,
    /// True if it has the key from the directory above.
    pub inherited: bool,
}

/// A directory as it was found, and as it is to be.
struct Candidate {
    dir: Dir,
    adopted: DirDescriptor,
    adoption: Adoption,
}

impl Volume {
    /// What [`Self::adopt`] would do with the directory `ino`; `None` if it is in its place.
    ///
    /// # Errors
    /// `Misplaced`, `Tampered` or `KeyUnusable` if the directory above cannot be used; `Tampered`
    /// or `KeyUnusable` if it cannot itself; `Twin`.
    pub fn adoption(&self, ino: u64) -> Result<Option<Adoption>> {
        let _still = self.tree.descriptors.read();
        Ok(self.candidate(ino)?.map(|candidate| candidate.adoption))
    }

    /// Takes in the directory `ino` where it is: from here on it belongs there, with the policy
    /// that it has. `None` if it was in its place already.
    ///
    /// *Crash order*: one descriptor is written; before it the directory is as it was. Then what is
    /// remembered of the place: before that the place may still be another directory's, and it is adopted
    /// again.
    ///
    /// # Errors
    /// As [`Self::adoption`]; `ReadOnly`; those of the backing filesystem.
    pub fn adopt(&self, ino: u64) -> Result<Option<Adoption>> {
        self.tree.writable()?;
        let adopting = self.tree.descriptors.write();
        let Some(Candidate { dir, adopted, adoption }) = self.candidate(ino)? else {
            return Ok(None);
        };
        let bytes = adopted.encode(dir.keys()?);
        write_descriptor(dir.as_fd(), &bytes, self.tree.locks.watch(ino))?;
        sync_file(dir.as_fd())?;
        fsync(&dir)?;
        drop(adopting);
        if let Some(Places { to: place, .. }) = adopted.places {
            self.claim_place(place, adopted.dir);
        }
        self.tree.anchor.note(&adopted);
        log::warn!("directory {} was taken in where it is (inode {ino})", adopted.dir);
        // What is below it can be used now, under other names than those shown before.
        self.invalidate(self.tree.dirs.clear());
        // Opening it notes where it is.
        let _opened = self.dir(ino);
        self.save_dir_policies();
        Ok(Some(adoption))
    }

    fn candidate(&self, ino: u64) -> Result<Option<Candidate>> {
        let Some(Whereabouts::Entry(Link { parent, name })) = self.tree.inodes.whereabouts(ino)
        else {
            return Err(Errno::INVAL.into());
        };
        let parent = self.dir(parent)?;
        parent.keys()?;
        let Some(why) = self.entry_dir(&parent, &name)?.misplaced() else { return Ok(None) };
        let dir = self.open_anywhere(&parent, &name)?;
        let stored = dir.descriptor()?;
        self.refuse_twin(stored.dir, &dir)?;
        let Expected::At(place, above) = parent.authority().expects(name.bytes()) else {
            return Err(VolumeError::Misplaced(Misplaced::Above));
        };
        let inherited =
            stored.inherited && matches!(&above, Above::Keys(keys) if keys.suits(stored, stored));
        let newest = self.tree.anchor.newest(stored.dir).max(stored.policy_sequence);
        let adopted = DirDescriptor {
            inherited,
            sequence: stored.sequence + 1,
            places: Some(Places::at(place)),
            policy_sequence: newest + 1,
            ..stored.clone()
        };
        if !adopted.fits() {
            return Err(VolumeError::FormerKeys);
        }
        let adoption = Adoption { why, dir: adopted.dir, policy: adopted.policy, inherited };
        Ok(Some(Candidate { dir, adopted, adoption }))
    }

    /// The directory under a backing name, wherever it belongs.
    fn open_anywhere(&self, parent: &Arc<Dir>, entry: &BackingName) -> Result<Dir> {
        let held = beneath::hold(parent, entry)?;
        let ino = self.tree.inodes.shown(held.found().st_ino);
        let fd = held.open_dir()?;
        let copies = Copies::read(&fd);
        Dir::open(ino, fd, copies, Expected::Removed, self.opener())
    }

    /// Two directories with one id would have the same names and vouch for the same places: what is
    /// in the one could be exchanged for what is in the other.
    fn refuse_twin(&self, id: DirId, dir: &Dir) -> Result<()> {
        let own = fstat(dir)?.st_ino;
        let mut walk = Walk::new(&self.root)?;
        while let Some(visit) = walk.step()? {
            let has_id = dir_copies(&visit.fd).iter().any(|copy| copy.dir == id);
            if has_id && fstat(&visit.fd)?.st_ino != own {
                return Err(VolumeError::Twin(visit.path()));
            }
        }
        // It may be below what is mounted inside the vault.
        if let Some(covered) = walk.take_mounted().first() {
            log::warn!("adopt: something is mounted on {} in the vault", covered.display());
            return Err(Errno::BUSY.into());
        }
        Ok(())
    }
}
