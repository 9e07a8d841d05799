//! Gives a directory, and those below that inherit from it, another key for new files.

use std::collections::HashMap;
use std::sync::Arc;

use rustix::io::Errno;

use super::descent::{Descent, Unseen};
use super::walk::{Role, Visit};
use crate::envelope::{CrossMode, DirDescriptor};
use crate::id::KeyId;
use crate::volume::engine::Volume;
use crate::volume::keys::keyring::Purpose;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;

impl Volume {
    /// Gives a directory, and those below that inherit from it, the key `key` for new files.
    ///
    /// Files keep the key that they have, which stays accepted, until a re-wrap moves them. Returns
    /// how many directories changed.
    ///
    /// # Errors
    /// `KeyUnusable`; `Io(BUSY)` if something is mounted on one of them; `FormerKeys` when files of too
    /// many of them still wait for a re-wrap; `LinkedElsewhere` if a file has a further name in a directory that does not change.
    pub fn set_dir_policy(&self, ino: u64, key: KeyId, cross: Option<CrossMode>) -> Result<u64> {
        self.tree.writable()?;
        // What is renamed meanwhile would keep the key that it had.
        let still = self.tree.renames.hold();
        let top = self.dir(ino)?;
        let mut names = Names::default();
        self.each_inheriting(&top, |visit, _| names.count(visit))?;
        if names.are_elsewhere() {
            return Err(VolumeError::LinkedElsewhere);
        }
        let mut changed = 0;
        self.each_inheriting(&top, |visit, dir| {
            changed += 1;
            self.change_descriptor(dir, |old| {
                let mut new = self.under(old, key)?;
                new.inherited = visit.depth > 0;
                new.cross = cross.unwrap_or(old.cross);
                Ok(Some(new))
            })?;
            Ok(())
        })?;
        drop(still);
        self.settle_wraps();
        self.sync_everything()?;
        // Opening it notes where it is, and what is above it.
        let _opened = self.dir(ino);
        self.save_dir_policies();
        Ok(changed)
    }

    /// Acts on the directory, and on all below that take their policy from it, parents first.
    fn each_inheriting(
        &self,
        top: &Arc<Dir>,
        mut act: impl FnMut(&Visit, &Dir) -> Result<()>,
    ) -> Result<()> {
        let mut descent = Descent::below(self, Arc::clone(top))?;
        // Directories down to this depth have one above them that counts.
        let mut reach = 0;
        while let Some((visit, dir)) = descent.step()? {
            if visit.depth > reach {
                continue;
            }
            reach = visit.depth;
            if visit.depth == 0 || dir.descriptor()?.inherited {
                act(&visit, &dir)?;
                reach += 1;
            }
        }
        // A mount on one of them keeps it out of reach.
        // What has no name belongs nowhere, under any policy.
        if let Some(missed) = descent.missed().iter().find(|missed| missed.why != Unseen::Nameless)
        {
            log::warn!("policy: in {}, {}", missed.path.display(), missed.why);
            return Err(Errno::BUSY.into());
        }
        Ok(())
    }

    fn under(&self, old: &DirDescriptor, key: KeyId) -> Result<DirDescriptor> {
        let mut new = old.clone();
        if old.policy != key {
            new.policy = key;
            new.previous.retain(|known| *known != key);
            new.previous.insert(0, old.policy);
        }
        if old.recipient.key != key {
            new.recipient =
                self.keyring.rewrap(&old.recipient, key, Purpose::Directory(old.dir))?;
        }
        Ok(new)
    }
}

/// Files with several names: how many they have, and how many were counted.
#[derive(Default)]
struct Names(HashMap<u64, (u64, u64)>);

impl Names {
    fn count(&mut self, visit: &Visit) -> Result<()> {
        for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
            if let Some(stat) = visit.stat(entry)?.filter(|stat| stat.st_nlink > 1) {
                self.0.entry(stat.st_ino).or_insert((stat.st_nlink, 0)).1 += 1;
            }
        }
        Ok(())
    }

    fn are_elsewhere(&self) -> bool {
        self.0.values().any(|(all, counted)| counted < all)
    }
}
