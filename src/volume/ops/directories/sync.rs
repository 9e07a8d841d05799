//! Making what was done to names durable.

use std::collections::HashSet;
use std::os::fd::AsFd;

use rustix::fs::{OFlags, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::contents::{Backing, BackingFile, Durability};
use crate::volume::backing::listing::raw_names;
use crate::volume::engine::Volume;
use crate::volume::files::dir_stream::DirStream;
use crate::volume::files::file::File;
use crate::volume::model::error::Result;
use crate::volume::namespace::descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::names::EntryName;
use crate::volume::namespace::unsynced::Pending;

impl Volume {
    /// Makes the entries of a directory durable, with the descriptors of its new child directories,
    /// without which they would be of no use. The sidecars of long names are durable already.
    ///
    /// # Errors
    /// Those of the backing filesystem; what was not made durable is tried again next time.
    pub fn sync_dir(&self, ino: u64, what: Durability) -> Result<()> {
        self.sync_below(|| vec![ino], || self.sync_names(ino, what))
    }

    /// The same for a handle, which is told once of what was lost since it was opened.
    ///
    /// # Errors
    /// As [`Self::sync_dir`].
    pub fn sync_stream(&self, stream: &DirStream, what: Durability) -> Result<()> {
        let synced = self.sync_dir(stream.ino, what);
        let told = self.tree.errors.tell(stream.ino, &stream.heard);
        synced.and(Ok(told?))
    }

    fn sync_names(&self, ino: u64, what: Durability) -> Result<()> {
        let dir = self.dir(ino)?;
        let (pending, at) = self.tree.unsynced.of(ino);
        match pending {
            Pending::Names(names) => {
                names.iter().try_for_each(|name| self.sync_child(&dir, name))?;
                self.tree.unsynced.synced(ino, at);
            }
            Pending::Everything if self.is_any_lost() => {
                raw_names(&*dir)?.iter().try_for_each(|name| self.sync_child(&dir, name))?;
                self.tree.unsynced.synced(ino, at);
            }
            Pending::Everything => self.sync_everything()?,
        }
        let synced = match what {
            Durability::Contents => fdatasync(&*dir),
            Durability::Everything => fsync(&*dir),
        };
        Ok(synced.inspect_err(|error| self.tree.errors.record(ino, *error))?)
    }

    /// Syncs something in the directories `dirs`: first the names of the new ones, then it, and then
    /// names once more, since it may have moved to another new directory meanwhile.
    ///
    /// *Crash*: after the first step the directories have their names, and what is to be synced is in
    /// them or not on the disk yet. After the second it is in them. If it moved meanwhile it may be in a
    /// directory without a name, until the third; no sync has come back by then.
    ///
    /// # Errors
    /// Those of `sync`, and of [`Self::sync_new_dirs`]; everything was tried.
    pub(in crate::volume) fn sync_below(
        &self,
        dirs: impl Fn() -> Vec<u64>,
        sync: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let named = self.sync_new_dirs(&dirs());
        sync().and(named)?;
        self.sync_new_dirs(&dirs())
    }

    /// Before something in the directories `dirs` is synced: makes durable the names of the new ones
    /// among them, and of those above, from the root down.
    ///
    /// A directory is made under a name of its own and then renamed. Where names and attributes are
    /// in one journal, a sync of what is in it takes the rename along. Elsewhere (btrfs) it does so
    /// only if nobody has committed in between. Else the directory that a program had just made would
    /// be without a name after a power cut, and what was synced in it out of sight.
    ///
    /// Locks: none may be held.
    ///
    /// # Errors
    /// As [`Self::sync_dir`].
    pub(in crate::volume) fn sync_new_dirs(&self, dirs: &[u64]) -> Result<()> {
        if self.tree.one_journal || self.tree.unsynced.is_empty() {
            return Ok(());
        }
        let mut done = HashSet::new();
        for dir in dirs {
            let (mut way, mut next) = (Vec::new(), vec![*dir]);
            while let Some(dir) = next.pop() {
                let mut above = self.tree.inodes.parents(dir);
                above.retain(|above| done.insert(*above));
                way.extend(&above);
                next.append(&mut above);
            }
            let mut new = way.into_iter().rev().filter(|above| self.tree.unsynced.has(*above));
            new.try_for_each(|above| self.sync_names(above, Durability::Contents))?;
        }
        Ok(())
    }

    /// Before a sidecar is made for `name` in `dir`, which is a sync of something in it. Locks: none may
    /// be held.
    ///
    /// # Errors
    /// As [`Self::sync_dir`].
    pub(in crate::volume) fn sync_for_sidecar(&self, dir: &Dir, name: &EntryName) -> Result<()> {
        if name.sidecar.is_some() { self.sync_new_dirs(&[dir.ino()]) } else { Ok(()) }
    }

    /// Makes the contents of an open file durable, and the names of the directories that it is in.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn sync_open(&self, file: &File, what: Durability) -> Result<()> {
        self.sync_below(|| self.tree.inodes.parents(file.ino()), || file.sync(what))
    }

    /// The same for a sync that nobody asked for: the file matters more than names.
    ///
    /// # Errors
    /// Those of the file.
    pub(in crate::volume) fn sync_unasked(&self, file: &File) -> Result<()> {
        if let Err(error) = self.sync_new_dirs(&self.tree.inodes.parents(file.ino())) {
            log::warn!("inode {}: names of new directories are not durable: {error}", file.ino());
        }
        file.sync(Durability::Contents)
    }

    /// Syncs the whole backing filesystem, for all directories at once. Always through the same
    /// descriptor, which is as old as the volume: a younger one is not told of failures that somebody
    /// else, such as another process, has been told of before.
    ///
    /// # Errors
    /// Those of the backing filesystem. It does not say what is lost, and never says it again: from
    /// then on every file is asked by itself (`Content::synced_elsewhere`), and no directory is taken
    /// to be durable by such a sync any more.
    pub(in crate::volume) fn sync_everything(&self) -> Result<()> {
        let (at, times) = (self.tree.unsynced.now(), self.times.begin_sync());
        self.files.shared().sync_whole(|| syncfs(&self.root))?;
        if !self.is_any_lost() {
            self.tree.unsynced.all_synced(at);
            times.into_iter().for_each(|begun| self.times.synced(begun));
        }
        Ok(())
    }

    /// True if a sync failed in this session: what was not synced by then may be in memory only, while
    /// the system believes that it is on the disk.
    pub(in crate::volume) fn is_any_lost(&self) -> bool {
        self.files.shared().failed_syncs() > 0
    }

    fn sync_child(&self, dir: &Dir, name: &BackingName) -> Result<()> {
        let synced = sync_child(dir, name, self.is_any_lost());
        synced.inspect_err(|_| self.files.shared().note_failed_sync())
    }
}

/// Syncs a child directory with its descriptor. `renew`: that may be lost already.
fn sync_child(dir: &Dir, name: &BackingName, renew: bool) -> Result<()> {
    let child = match beneath::open_dir(dir, name) {
        // It was removed since, or is no directory: nothing is left to make durable.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::XDEV) => return Ok(()),
        other => other?,
    };
    sync_descriptor(&child, renew)?;
    Ok(fsync(child)?)
}

fn sync_descriptor(dir: impl AsFd, renew: bool) -> Result<()> {
    let flags = if renew { OFlags::RDWR } else { OFlags::RDONLY };
    let file = match beneath::open_file(dir, descriptor::FILE, flags) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE) => return Ok(()),
        other => BackingFile::new(other?),
    };
    if renew {
        // As `Content::write_again` does: what the system has in memory is given to it once more.
        let mut bytes = vec![0; usize::try_from(file.length()?.min(OWN_MAX)).unwrap_or(0)];
        let length = file.read_at(&mut bytes, 0)?;
        file.forget(0, length as u64)?;
        file.write_at(bytes.get(..length).unwrap_or_default(), 0)?;
    }
    Ok(file.sync(Durability::Contents)?)
}

/// More than any descriptor has.
const OWN_MAX: u64 = 4096;
