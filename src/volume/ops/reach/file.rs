//! From an inode number to an open file, and to the KMS keys that it may be under.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

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
        let file =
            self.files.open(ino, policy, |flags| self.reopen(ino, flags).map(|(fd, _)| fd))?;
        let opened = Briefly { file, _release: Release { volume: self, ino } };
        self.hear_of_policies(&opened.file)?;
        Ok(opened)
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
        let as_of = self.keyring.epoch();
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
        let policy = match (policy, misplaced) {
            (Some(policy), _) => policy,
            (None, Some(why)) => return Err(VolumeError::Misplaced(why)),
            // Its directories are gone, and it is open through a descriptor only.
            (None, None) => policy_of(&*self.dir(ROOT)?)?,
        };
        Ok(FilePolicy { as_of, ..policy })
    }

    /// The kernel found a file by a name, perhaps a new one: if the file is open, the policies that it
    /// was opened under may not be all that count.
    pub(in crate::volume) fn hear_of_name(&self, ino: u64) {
        if let Err(error) = self.refresh_file_policy(ino) {
            log::debug!("inode {ino}: what its directories say of keys: {error}");
        }
    }

    /// The same for a file that was just opened: whoever told open files of a new policy may not have
    /// seen it yet.
    pub(in crate::volume) fn hear_of_policies(&self, file: &File) -> Result<()> {
        if file.source().may_be_outdated() { self.refresh_file_policy(file.ino()) } else { Ok(()) }
    }

    /// Tells an open file what its directories say now.
    pub(in crate::volume) fn refresh_file_policy(&self, ino: u64) -> Result<()> {
        match self.files.find(ino) {
            Some(file) => self.file_policy(ino).map(|policy| file.set_policy(policy)),
            None => Ok(()),
        }
    }

    /// Brings out what only the memory has of keys, before a search for what is under a key, or what a
    /// directory gives up: when this returns, every wrap that was made before is on the disk, where a
    /// search finds it, or gone. Open files hear what their directories say now.
    ///
    /// *Order*: (1) the epoch begins: what was prepared before it is not used from here on, and a policy
    /// that was looked up before it is looked up again; (2) whoever makes a directory or changes a
    /// descriptor is waited for; (3) so is every writer of an open file. Whoever used something from
    /// before (1) has one of these locks until it is on the disk, or, for a file that was not open yet
    /// when (3) looked, learns of (1) by the lock of the table.
    pub(in crate::volume) fn settle_wraps(&self) {
        self.keyring.begin_epoch();
        drop(self.tree.descriptors.write());
        for file in self.files.all() {
            if let Err(error) = self.refresh_file_policy(file.ino()) {
                log::debug!("inode {}: what its directories say of keys: {error}", file.ino());
            }
            file.source().set_prepared(None);
            file.content().wait_for_writers();
        }
    }
}
