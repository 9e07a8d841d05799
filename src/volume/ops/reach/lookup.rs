//! Finding entries, and telling what they are.

use std::sync::Arc;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use crate::envelope::layout::{PAGE, PAGE_LEN};
use crate::envelope::link_target_len;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::handle::open_noatime;
use crate::volume::backing::identity::{InodeIdentity, InodeStat};
use crate::volume::backing::lender;
use crate::volume::engine::Volume;
use crate::volume::files::unopened::has_odd_size;
use crate::volume::model::attr::{Attr, FileKind, Timestamp};
use crate::volume::model::clock;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::inode::{Link, Resized};
use crate::volume::namespace::names::EntryName;
use crate::volume::session::times::Times;

/// An entry that the kernel is about to be told of.
pub(in crate::volume) struct Entered {
    pub(in crate::volume) attr: Attr,
    /// The identity that the kernel knew under its number before.
    pub(in crate::volume) before: Option<InodeIdentity>,
}

impl Volume {
    /// The entry `name` of `parent`, or `None` if there is none. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `NameTooLong`, `KeyUnusable`, `Tampered` (the directory's descriptor), `Stale`.
    pub fn lookup(&self, parent: u64, name: &[u8]) -> Result<Option<Attr>> {
        Ok(self.look_up(parent, name)?.map(|entered| entered.attr))
    }

    pub(in crate::volume) fn look_up(&self, parent: u64, name: &[u8]) -> Result<Option<Entered>> {
        let dir = self.dir(parent)?;
        match EntryName::existing(&dir, name) {
            Ok(name) => {
                let found = self.enter_entry(&dir, &name.entry)?;
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
        // Listings that the kernel keeps do not bring it back.
        self.lose(ino, count, |parent| self.tree.listings.outdate(parent));
    }

    fn lose(&self, ino: u64, count: u64, left: impl FnMut(u64)) {
        if self.tree.inodes.forget(ino, count, left) {
            self.tree.listings.forget(ino);
        }
    }

    /// How many inodes the kernel knows, besides the root: what the inode table holds in memory.
    pub fn known_inodes(&self) -> usize {
        self.tree.inodes.count()
    }

    /// The attributes of `ino`, for the kernel, which judges by them from then on.
    ///
    /// # Errors
    /// `Stale` if it is gone; those of the backing filesystem.
    pub fn attr(&self, ino: u64) -> Result<Attr> {
        let since = self.tree.inodes.resized(ino);
        Ok(self.telling_size(self.shown_attr(ino, &self.stat_to_tell(ino)?)?, since))
    }

    /// Tells the kernel of the backing entry `entry`. Locks: the directory's, for reading, so that
    /// nobody removes the entry before it is in the inode table.
    pub(in crate::volume) fn enter(
        &self,
        dir: &Arc<Dir>,
        entry: &BackingName,
    ) -> Result<Option<Attr>> {
        Ok(self.enter_entry(dir, entry)?.map(|entered| entered.attr))
    }

    pub(in crate::volume) fn enter_entry(
        &self,
        dir: &Arc<Dir>,
        entry: &BackingName,
    ) -> Result<Option<Entered>> {
        let held = self.tree.locks.reading(dir.ino());
        let telling = self.tree.telling();
        let (seen, since) = match self.look_at_entry(dir, entry) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.tree.same_device(&seen.stat)?;
        let ino = self.tree.inodes.shown(seen.stat.st_ino);
        if FileKind::from_mode(seen.stat.st_mode) == Some(FileKind::Directory) {
            self.enter_dir(ino, dir, entry);
        }
        let before = self.tell(&seen, dir.ino(), entry);
        drop((telling, held));
        if before.is_some() {
            self.hear_of_name(ino);
        }
        let shown = self.shown_attr(ino, &seen.stat);
        // Another inode may have got this number meanwhile: then the kernel hears only of that one.
        let identity = self.tree.identity(&seen);
        let still =
            self.tree.inodes.known_identity(ino).is_none_or(|now| now.is_born_with(identity));
        match shown {
            Ok(attr) if still => {
                let attr = self.telling_size(attr, since);
                let attr = Attr { generation: self.generation(&seen), ..attr };
                Ok(Some(Entered { attr, before }))
            }
            shown => {
                self.take_back(ino, before);
                Err(shown.err().unwrap_or(VolumeError::Stale))
            }
        }
    }

    /// Looks at what an entry leads to, and notes when that was in the life of its inode, whose number
    /// nobody knows before.
    fn look_at_entry(&self, dir: &Dir, entry: &BackingName) -> Result<(InodeStat, Resized), Errno> {
        let mut tries = 0;
        loop {
            let before = self.tree.inodes.all_resized();
            let seen = match self.tree.options.export {
                true => beneath::look_closer(dir, entry)?,
                false => beneath::look(dir, entry)?,
            };
            let since = self.tree.inodes.resized(self.tree.inodes.shown(seen.stat.st_ino));
            tries += 1;
            if self.tree.inodes.all_resized() == before || tries == LOOKS {
                return Ok((seen, since));
            }
        }
    }

    /// The kernel is told of this inode, by this name, which is one lookup more. Returns the identity
    /// that it knew under the number before.
    pub(in crate::volume) fn tell(
        &self,
        seen: &InodeStat,
        parent: u64,
        entry: &BackingName,
    ) -> Option<InodeIdentity> {
        let (ino, identity) = (self.tree.inodes.shown(seen.stat.st_ino), self.tree.identity(seen));
        let before = self.tree.inodes.enter(ino, parent, entry, identity);
        if before.is_some_and(|before| !before.is_born_with(identity)) {
            log::warn!("inode {ino} is another than it was: somebody replaced it in the vault");
            self.files.removed(ino);
        }
        before
    }

    /// The kernel does not hear of it after all.
    pub(in crate::volume) fn take_back(&self, ino: u64, before: Option<InodeIdentity>) {
        self.tree.inodes.restore_identity(ino, before);
        self.lose(ino, 1, drop);
    }

    /// Tells an inode from others that had its number. Where it is reached by that, from all that ever
    /// had it, in this mount or another.
    pub(in crate::volume) fn generation(&self, seen: &InodeStat) -> u64 {
        seen.generation().unwrap_or_else(|| self.tree.identity(seen).birth).into()
    }

    /// Enters a directory, which has one name. If it is found under another than before, it was moved
    /// outside of the volume, and what was verified of it does not count any more. Locks: the
    /// directory's, for reading.
    fn enter_dir(&self, ino: u64, parent: &Dir, entry: &BackingName) {
        if self.tree.dirs.find(ino).is_some_and(|dir| !dir.was_found_at(parent.ino(), entry)) {
            self.tree.dirs.has_left(ino);
        }
        let link = Link { parent: parent.ino(), name: entry.clone() };
        self.tree.inodes.keep_dir(ino);
        self.tree.inodes.only_link(ino, &link);
    }

    /// What the user sees of a backing inode. Locks: none may be held.
    pub(in crate::volume) fn shown_attr(&self, ino: u64, stat: &Stat) -> Result<Attr> {
        let mut attr = Attr::from_stat(ino, stat);
        let (mode, ctime) = lender::without_loan(stat);
        attr.perm = u16::try_from(mode & 0o7777).unwrap_or(0);
        let mtime = clock::mtime(stat);
        let shown = self.times.shown(ino, Times { ctime, mtime });
        attr.ctime = Timestamp::from_nanos(shown.ctime);
        if shown.mtime != mtime {
            attr.mtime = Timestamp::from_nanos(shown.mtime);
        }
        match attr.kind {
            FileKind::Regular => {
                let open = self.open_size(ino);
                if let Some(size) = open.or_else(|| self.checked_size(ino, stat, ctime)) {
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
    fn checked_size(&self, ino: u64, stat: &Stat, backing_ctime: i64) -> Option<u64> {
        if self.size_is_suspect(backing_ctime) || self.has_odd_page(ino, stat) {
            return self.open_briefly(ino).ok().map(|opened| opened.file().size());
        }
        // What was found before the recovery of the file must not be shown after it.
        let outdated = self.files.shared().is_outdated(backing_ctime);
        let now = outdated.then(|| self.stat(ino).ok()).flatten()?;
        Some(Attr::from_stat(ino, &now).size)
    }

    /// True if a crash is not mended yet, and the only page of the file claims another length. Times do
    /// not tell, so each of these files is looked at until recovery has been there.
    fn has_odd_page(&self, ino: u64, stat: &Stat) -> bool {
        let one_page = u64::try_from(stat.st_size).is_ok_and(|length| length / PAGE == 1);
        if !one_page || !self.files.shared().has_crashed() {
            return false;
        }
        let mut page = [0; PAGE_LEN];
        let open = |flags| self.reopen(ino, flags).map(|(fd, _)| fd);
        let read =
            open_noatime(OFlags::RDONLY, open).and_then(|fd| rustix::io::pread(fd, &mut page, 0));
        read.is_ok() && has_odd_size(stat, &page)
    }
}

/// How often an entry is looked at while others change sizes all the time. In the end an old look is
/// only one more that does not count, or a second lookup for whoever opens the file.
const LOOKS: usize = 8;
