//! Renaming: within and across directories, over what is there, and in exchange for it.

use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags, Stat, renameat_with, statat};
use rustix::io::Errno;

use super::Volume;
use super::attr::FileKind;
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::names::BackingName;
use super::tree::Caller;

/// How to rename.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RenameHow {
    /// Fail if the new name is taken.
    pub no_replace: bool,
    /// Exchange the two, which must both exist.
    pub exchange: bool,
    /// Leave a whiteout (a character device 0/0) behind, as overlay filesystems need it.
    pub whiteout: bool,
}

/// One end of a rename.
struct End {
    dir: Arc<Dir>,
    name: BackingName,
}

impl Volume {
    /// Gives `from` the name `to`; each is a directory and a name in it.
    ///
    /// # Errors
    /// `NotFound`, `NotEmpty`, `Io(EXIST)`, `CrossPolicy`, `Denied`, `ReservedName`, `NameTooLong`,
    /// `ReadOnly`, and those of the backing filesystem.
    pub fn rename(
        &self,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        how: RenameHow,
        caller: Caller,
    ) -> Result<()> {
        self.tree.writable()?;
        let source = self.dir(from.0)?;
        let source = End { name: BackingName::existing(&source, from.1)?, dir: source };
        let target = self.dir(to.0)?;
        let target = End { name: BackingName::new(&target, to.1)?, dir: target };
        let there = self.cross_over(&source, &target, caller)?;
        let back = how.exchange && self.cross_over(&target, &source, caller)?;
        let mut dirs = vec![from.0, to.0];
        loop {
            let _changing = self.tree.locks.changing(&dirs);
            let moved = source.stat()?.ok_or(VolumeError::NotFound)?;
            let victim = target.stat()?;
            // What is in a directory that will be replaced must hold still as well.
            if let Some(victim) = victim.as_ref().filter(|stat| is_dir(stat)) {
                let ino = self.tree.inodes.shown(victim.st_ino);
                if !dirs.contains(&ino) {
                    dirs.push(ino);
                    continue;
                }
            }
            self.rename_locked(&source, &target, (&moved, victim.as_ref()), how)?;
            break;
        }
        // The locks are free again: opening a file takes them.
        if there {
            self.settle_in(&target, &source)?;
        }
        if back {
            self.settle_in(&source, &target)?;
        }
        Ok(())
    }

    /// Locks: the caller claims both directories and what the new name leads to.
    fn rename_locked(
        &self,
        source: &End,
        target: &End,
        (moved, victim): (&Stat, Option<&Stat>),
        how: RenameHow,
    ) -> Result<()> {
        match victim {
            Some(_) if how.no_replace => return Err(Errno::EXIST.into()),
            // Two names of one file: POSIX says to do nothing.
            Some(victim) if victim.st_ino == moved.st_ino => return Ok(()),
            Some(victim) if how.exchange => {
                return self.exchange(source, target, moved, victim);
            }
            None if how.exchange => return Err(VolumeError::NotFound),
            _ => {}
        }
        let emptied = match victim {
            Some(victim) if is_dir(victim) && is_dir(moved) => {
                Some(self.empty_dir(&target.dir, &target.name.entry)?)
            }
            _ => None,
        };
        let done = self.replace(source, target, (moved, victim), how);
        match (&done, victim, &emptied) {
            (Err(_), _, Some(emptied)) => self.refill(emptied),
            (Ok(()), Some(victim), Some(_)) => {
                self.removed_dir(self.tree.inodes.shown(victim.st_ino));
            }
            _ => {}
        }
        done
    }

    fn replace(
        &self,
        source: &End,
        target: &End,
        (moved, victim): (&Stat, Option<&Stat>),
        how: RenameHow,
    ) -> Result<()> {
        let long_link =
            victim.and_then(|stat| self.long_link_of(&target.dir, &target.name.entry, stat));
        let fresh_sidecar = self.prepare_sidecar(&target.dir, &target.name)?;
        let pinned = match victim {
            Some(stat) => {
                let ino = self.tree.inodes.shown(stat.st_ino);
                Some((ino, self.pin_last(&target.dir, &target.name.entry, stat)?))
            }
            None => None,
        };
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, victim.is_none());
        flags.set(RenameFlags::WHITEOUT, how.whiteout);
        if let Err(error) = source.rename_to(target, flags) {
            if let Some((ino, pinned)) = pinned {
                self.undo_pin(ino, pinned);
            }
            if fresh_sidecar {
                self.drop_sidecar(&target.dir, &target.name);
            }
            return Err(error);
        }
        if let Some((ino, _)) = pinned {
            self.tree.inodes.drop_link(ino, target.dir.ino(), &target.name.entry);
            if victim.is_some_and(|stat| stat.st_nlink == 1) {
                self.files.removed(ino);
            }
        }
        self.note_move(source, target, moved);
        if !how.whiteout {
            self.drop_sidecar(&source.dir, &source.name);
        }
        if let Some(id) = long_link {
            self.remove_long_link(&id);
        }
        Ok(())
    }

    fn exchange(&self, source: &End, target: &End, moved: &Stat, other: &Stat) -> Result<()> {
        source.rename_to(target, RenameFlags::EXCHANGE)?;
        self.note_move(source, target, moved);
        self.note_move(target, source, other);
        Ok(())
    }

    /// What the move takes if the two directories have other keys; true if something has to follow.
    fn cross_over(&self, source: &End, target: &End, caller: Caller) -> Result<bool> {
        let moved = source.stat()?.ok_or(VolumeError::NotFound)?;
        // Two names of one file: nothing will move.
        if target.stat()?.is_some_and(|victim| victim.st_ino == moved.st_ino) {
            return Ok(false);
        }
        self.cross(&moved, (&source.dir, &target.dir), caller)
    }

    /// What came to `end` from `former` is settled there.
    fn settle_in(&self, end: &End, former: &End) -> Result<()> {
        if let Some(stat) = end.stat()? {
            self.settle(self.tree.inodes.shown(stat.st_ino), (&former.dir, &end.dir));
        }
        Ok(())
    }

    fn note_move(&self, source: &End, target: &End, moved: &Stat) {
        let ino = self.tree.inodes.shown(moved.st_ino);
        self.tree.inodes.add_link(ino, target.dir.ino(), &target.name.entry);
        self.tree.inodes.drop_link(ino, source.dir.ino(), &source.name.entry);
        if self.tree.unsynced.has(source.dir.ino(), &source.name.entry) {
            self.tree.unsynced.add(target.dir.ino(), &target.name.entry);
        }
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileKind::from_mode(stat.st_mode) == Some(FileKind::Directory)
}

impl End {
    fn stat(&self) -> Result<Option<Stat>> {
        match statat(&*self.dir, &*self.name.entry, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn rename_to(&self, target: &Self, flags: RenameFlags) -> Result<()> {
        let (from, to) = (&*self.name.entry, &*target.name.entry);
        Ok(renameat_with(&*self.dir, from, &*target.dir, to, flags)?)
    }
}
