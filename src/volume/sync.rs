//! Making what was done to names durable.

use std::os::fd::AsFd;

use rustix::fs::{OFlags, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use super::Volume;
use super::beneath::{self, BackingName};
use super::dir::{self, Dir};
use super::error::Result;
use super::unsynced::Pending;
use crate::envelope::{LONG_PREFIX, SIDECAR_SUFFIX, is_sidecar};

impl Volume {
    /// Makes the entries of a directory durable, with the sidecars of its long names and the
    /// descriptors of its new child directories, without which they would be of no use.
    ///
    /// # Errors
    /// Those of the backing filesystem; what was not made durable is tried again next time.
    pub fn sync_dir(&self, ino: u64) -> Result<()> {
        let dir = self.dir(ino)?;
        let (pending, at) = self.tree.unsynced.of(ino);
        match pending {
            Pending::Names(names) => {
                names.iter().try_for_each(|name| sync_child(&dir, name))?;
                self.tree.unsynced.settled(ino, at);
            }
            Pending::Everything => self.sync_everything(&*dir)?,
        }
        Ok(fsync(&*dir)?)
    }

    /// One sync of the whole backing filesystem, which `on` lies on: it does for all directories.
    /// An error of the disk is told once to each open file, so everybody asks through their own.
    ///
    /// # Errors
    /// Those of the backing filesystem. It does not say what is lost, and never says it again: from
    /// then on every file is asked by itself (`Content::synced_elsewhere`).
    pub(super) fn sync_everything(&self, on: impl AsFd) -> Result<()> {
        let at = self.tree.unsynced.now();
        if let Err(error) = syncfs(on) {
            self.files.shared().note_failed_sync();
            return Err(error.into());
        }
        self.tree.unsynced.all_settled(at);
        Ok(())
    }

    /// A synced file is of no use under a long name that a crash takes away: syncs the sidecars
    /// of the names of `ino`.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn sync_names(&self, ino: u64) -> Result<()> {
        for link in self.tree.inodes.links(ino) {
            if !link.name.bytes().starts_with(LONG_PREFIX.as_bytes()) {
                continue;
            }
            let Some(sidecar) = link.name.with(SIDECAR_SUFFIX) else { continue };
            if self.tree.unsynced.has(link.parent, &sidecar) {
                sync_child(&*self.dir(link.parent)?, &sidecar)?;
            }
        }
        Ok(())
    }
}

fn sync_child(dir: &Dir, name: &BackingName) -> Result<()> {
    let opened = if is_sidecar(name.bytes()) {
        beneath::open_file(dir, name, OFlags::RDONLY)
    } else {
        beneath::open_dir(dir, name)
    };
    let opened = match opened {
        // It was removed since, or is another: nothing is left to make durable.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => return Ok(()),
        other => other?,
    };
    if is_sidecar(name.bytes()) {
        return Ok(fdatasync(opened)?);
    }
    match beneath::open_file(&opened, dir::FILE, OFlags::RDONLY) {
        Ok(file) => fdatasync(file)?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(fsync(opened)?)
}
