//! Making what was done to names durable.

use std::os::fd::AsFd;

use rustix::fs::{OFlags, fdatasync, fsync, syncfs};
use rustix::io::Errno;

use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::contents::{Backing, BackingFile, Durability};
use crate::volume::backing::listing::raw_names;
use crate::volume::engine::Volume;
use crate::volume::files::dir_stream::DirStream;
use crate::volume::model::error::Result;
use crate::volume::namespace::descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::unsynced::Pending;

impl Volume {
    /// Makes the entries of a directory durable, with the descriptors of its new child directories,
    /// without which they would be of no use. The sidecars of long names are durable already.
    ///
    /// # Errors
    /// Those of the backing filesystem; what was not made durable is tried again next time.
    pub fn sync_dir(&self, ino: u64, what: Durability) -> Result<()> {
        self.sync_names(ino, what)?;
        self.sync_new_dirs(vec![ino])
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

    /// After a file was synced, or a directory: makes durable the names of the new ones among the
    /// directories that it is in, `dirs`, and those above.
    ///
    /// A directory is made under a name of its own and then renamed. Where names and attributes are
    /// in one journal, a sync of the file takes the rename along. Elsewhere (btrfs) it does so only
    /// if nobody has committed in between: the directory that a program had just made would be gone
    /// after a power cut, and the synced file with it.
    ///
    /// # Errors
    /// As [`Self::sync_dir`].
    pub(in crate::volume) fn sync_new_dirs(&self, mut dirs: Vec<u64>) -> Result<()> {
        if self.tree.one_journal || self.tree.unsynced.is_empty() {
            return Ok(());
        }
        let mut seen = Vec::new();
        while let Some(dir) = dirs.pop() {
            for above in self.tree.inodes.parents(dir).into_iter().filter(|above| *above != dir) {
                if seen.contains(&above) {
                    continue;
                }
                seen.push(above);
                if self.tree.unsynced.has(above) {
                    self.sync_names(above, Durability::Contents)?;
                }
                dirs.push(above);
            }
        }
        Ok(())
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

    /// Syncs the whole backing filesystem, for all directories at once. Always through the same
    /// descriptor, which is as old as the volume: a younger one is not told of failures that somebody
    /// else, such as another process, has been told of before.
    ///
    /// # Errors
    /// Those of the backing filesystem. It does not say what is lost, and never says it again: from
    /// then on every file is asked by itself (`Content::synced_elsewhere`), and no directory is taken
    /// to be durable by such a sync any more.
    pub(in crate::volume) fn sync_everything(&self) -> Result<()> {
        let at = self.tree.unsynced.now();
        self.files.shared().sync_whole(|| syncfs(&self.root))?;
        if !self.is_any_lost() {
            self.tree.unsynced.all_synced(at);
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
