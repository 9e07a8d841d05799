//! Finding entries, and telling what they are.

use std::sync::Arc;

use rustix::fs::Stat;
use rustix::io::Errno;

use super::Volume;
use super::attr::{Attr, FileKind, Timestamp};
use super::beneath::{self, BackingName};
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::inode::Link;
use super::lender;
use super::names::EntryName;
use crate::envelope::link_target_len;

impl Volume {
    /// The entry `name` of `parent`, or `None` if there is none. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `NameTooLong`, `KeyUnusable`, `Tampered` (the directory's descriptor), `Stale`.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        let dir = self.dir(parent)?;
        match EntryName::existing(&dir, name) {
            Ok(name) => {
                let found = self.enter(&dir, &name.entry)?;
                if found.is_some() {
                    self.heal_sidecar(&dir, &name);
                }
                Ok(found)
            }
            Err(VolumeError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes back `count` lookups of `ino`.
    pub fn forget(&self, ino: u64, count: u64) {
        if self.tree.inodes.forget(ino, count) {
            self.files.forget(ino, || self.tree.inodes.knows(ino));
        }
    }

    /// How many inodes the kernel knows, besides the root: what the inode table holds in memory.
    pub fn known_inodes(&self) -> usize {
        self.tree.inodes.count()
    }

    /// The attributes of `ino`.
    ///
    /// # Errors
    /// `Stale` if it is gone; those of the backing filesystem.
    pub fn attr(&self, ino: u64) -> Result<Attr> {
        self.shown_attr(ino, &self.stat(ino)?)
    }

    /// Tells the kernel of the backing entry `entry`. Locks: the directory's, for reading, so that
    /// nobody removes the entry before it is in the inode table.
    pub(super) fn enter(&self, dir: &Arc<Dir>, entry: &BackingName) -> Result<Option<Attr>> {
        let held = self.tree.locks.reading(dir.ino());
        let stat = match beneath::stat(dir, entry) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.tree.same_device(&stat)?;
        let ino = self.tree.inodes.shown(stat.st_ino);
        if FileKind::from_mode(stat.st_mode) == Some(FileKind::Directory) {
            self.enter_dir(ino, dir, entry);
        }
        self.tree.inodes.enter(ino, dir.ino(), entry);
        drop(held);
        let attr = self.shown_attr(ino, &stat);
        if attr.is_err() {
            self.forget(ino, 1);
        }
        attr.map(Some)
    }

    /// A directory has one name. One that is found under another than before was moved outside of
    /// the volume: what was verified of it counts no more. Locks: the directory's, for reading.
    fn enter_dir(&self, ino: u64, parent: &Dir, entry: &BackingName) {
        if self.tree.dirs.find(ino).is_some_and(|dir| !dir.was_found_at(parent.ino(), entry)) {
            self.tree.dirs.remove(ino);
        }
        let link = Link { parent: parent.ino(), name: entry.clone() };
        self.tree.inodes.only_link(ino, &link);
    }

    /// What the user sees of a backing inode. Locks: none may be held.
    pub(super) fn shown_attr(&self, ino: u64, stat: &Stat) -> Result<Attr> {
        let mut attr = Attr::from_stat(ino, stat);
        let (mode, ctime) = lender::settled(stat);
        attr.perm = u16::try_from(mode & 0o7777).unwrap_or(0);
        attr.ctime = Timestamp::from_nanos(self.times.shown(ino, ctime));
        match attr.kind {
            FileKind::Regular => {
                let open = self.open_size(ino);
                if let Some(size) = open.or_else(|| self.checked_size(ino, ctime)) {
                    attr.set_size(size);
                }
            }
            FileKind::Symlink => {
                attr.size = match link_target_len(attr.size) {
                    Some(length) => length,
                    None => self.long_link_length(ino, stat)?,
                };
            }
            _ => {}
        }
        Ok(attr)
    }

    /// The size that a file has by its last page, where a crash may have left another one (R5).
    fn checked_size(&self, ino: u64, backing_ctime: i64) -> Option<u64> {
        if !self.size_is_suspect(backing_ctime) {
            // What was found before the recovery of the file must not be shown after it.
            let outdated = self.files.shared().is_outdated(backing_ctime);
            let now = outdated.then(|| self.stat(ino).ok()).flatten()?;
            return Some(Attr::from_stat(ino, &now).size);
        }
        self.open_briefly(ino).ok().map(|opened| opened.file().size())
    }
}
