//! From an inode number to an open file, and to the KMS keys that it may be under.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::volume::backing::handle::open_noatime;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::files::file_key::{FilePolicy, policy_of};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::ROOT;

/// A handle for the length of one call.
#[derive(Debug)]
pub(in crate::volume) struct Briefly<'a> {
    file: Arc<File>,
    // After `file`: the table takes a file back that nobody holds any more.
    _release: Release<'a>,
}

#[derive(Debug)]
struct Release<'a> {
    volume: &'a Volume,
    ino: u64,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.volume.files.release(self.ino);
    }
}

impl Briefly<'_> {
    pub(in crate::volume) fn file(&self) -> &File {
        &self.file
    }
}

impl Volume {
    /// Opens a file for the length of one call.
    pub(in crate::volume) fn open_briefly(&self, ino: u64) -> Result<Briefly<'_>> {
        self.open_under(ino, &self.file_policy(ino)?)
    }

    /// The same, for a file that may be under other keys.
    pub(in crate::volume) fn open_under(
        &self,
        ino: u64,
        policy: &FilePolicy,
    ) -> Result<Briefly<'_>> {
        let file = self.files.open(ino, policy, |flags| {
            open_noatime(flags, |flags| self.reopen(ino, flags).map(|(fd, _)| fd))
        })?;
        Ok(Briefly { file, _release: Release { volume: self, ino } })
    }

    /// The size of a file of which more is known than the backing inode tells.
    pub(in crate::volume) fn open_size(&self, ino: u64) -> Option<u64> {
        self.files.known_size(ino)
    }

    /// Opens the backing file of `ino`. Locks: the directory's, for reading, for a moment.
    ///
    /// # Errors
    /// `STALE` if `ino` is gone, or no regular file.
    pub(in crate::volume) fn reopen(
        &self,
        ino: u64,
        flags: OFlags,
    ) -> Result<(OwnedFd, Stat), Errno> {
        let held = self.hold(ino).map_err(|error| match error {
            VolumeError::Io(errno) => errno,
            _ => Errno::STALE,
        })?;
        let open = |flags| held.open_file(flags);
        let fd = if self.tree.options.read_only {
            // Not even access times change; whoever may not ask for that reads without it.
            match open(flags | OFlags::NOATIME) {
                Err(Errno::PERM) => open(flags)?,
                other => other?,
            }
        } else {
            open(flags)?
        };
        Ok((fd, *held.found()))
    }

    /// The KMS keys that `ino` may be under: those that all of its directories accept (R9).
    pub(in crate::volume) fn file_policy(&self, ino: u64) -> Result<FilePolicy> {
        let mut policy: Option<FilePolicy> = None;
        let mut misplaced = None;
        for parent in self.tree.inodes.parents(ino) {
            let found = match self.dir(parent).and_then(|dir| policy_of(&dir)) {
                Ok(found) => found,
                Err(VolumeError::Stale) => continue,
                // A name there takes nothing from the names that it has elsewhere.
                Err(VolumeError::Misplaced(why)) => {
                    misplaced = Some(why);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match &mut policy {
                Some(policy) => policy.narrow(&found),
                None => policy = Some(found),
            }
        }
        match (policy, misplaced) {
            (Some(policy), _) => Ok(policy),
            (None, Some(why)) => Err(VolumeError::Misplaced(why)),
            // Its directories are gone, and it is open through a descriptor only.
            (None, None) => policy_of(&*self.dir(ROOT)?),
        }
    }

    /// The kernel found a file by a name, perhaps a new one: if the file is open, the policies that it
    /// was opened under may not be all that count.
    pub(in crate::volume) fn hear_of_name(&self, ino: u64) {
        if let Err(error) = self.refresh_file_policy(ino) {
            log::debug!("inode {ino}: what its directories say of keys: {error}");
        }
    }

    /// Tells an open file what its directories say now.
    pub(in crate::volume) fn refresh_file_policy(&self, ino: u64) -> Result<()> {
        match self.files.find(ino) {
            Some(file) => self.file_policy(ino).map(|policy| file.set_policy(policy)),
            None => Ok(()),
        }
    }

    /// The same for every open file: those without contents have not shown their key to anybody.
    /// When this returns, what first contents were given before is on the disk, or gone.
    pub(in crate::volume) fn refresh_file_policies(&self) {
        for file in self.files.all() {
            if let Err(error) = self.refresh_file_policy(file.ino()) {
                log::debug!("inode {}: what its directories say of keys: {error}", file.ino());
            }
            file.source().set_prepared(None);
            file.content().wait_for_writers();
        }
    }
}
