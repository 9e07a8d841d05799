//! Renaming: within and across directories, over what is there, and in exchange for it.

use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::remove::Pinned;
use crate::id::KeyId;
use crate::volume::backing::beneath;
use crate::volume::backing::handle::Handle;
use crate::volume::engine::Volume;
use crate::volume::model::attr::FileKind;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_locks::Changing;
use crate::volume::namespace::inode::Link;
use crate::volume::namespace::names::EntryName;
use crate::volume::ops::directories::moves::Moves;

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
    name: EntryName,
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
        let _renaming = self.tree.renames.enter();
        let source = self.dir(from.0)?;
        let source = End { name: EntryName::existing(&source, from.1)?, dir: source };
        let target = self.dir(to.0)?;
        let target = End { name: EntryName::new(&target, to.1)?, dir: target };
        self.sync_for_sidecar(&target.dir, &target.name)?;
        let (moved, victim) = (source.hold()?.ok_or(VolumeError::NotFound)?, target.hold()?);
        let mut moves_dirs = is_dir(&moved) || victim.as_ref().is_some_and(is_dir);
        if moves_dirs {
            // The move syncs what is in the two.
            self.sync_new_dirs(&[source.dir.ino(), target.dir.ino()])?;
        }
        // Held from before the first wrap for the new directory until the last one for the old is gone.
        let _wraps = self.claim_wraps(&source, &target, [Some(&moved), victim.as_ref()]);
        let there = self.cross_over((&source, &moved), (&target, victim.as_ref()), caller)?;
        let back = match &victim {
            Some(victim) if how.exchange => {
                self.cross_over((&target, victim), (&source, Some(&moved)), caller)?
            }
            None if how.exchange => return Err(VolumeError::NotFound),
            _ => Crossing::NONE,
        };
        let mut dirs = vec![from.0, to.0];
        loop {
            let mut moves =
                if moves_dirs { self.moving_dirs(&source, &target, how)? } else { None };
            let _changing = self.tree.locks.changing(&dirs);
            let moved = source.hold()?.ok_or(VolumeError::NotFound)?;
            let victim = target.hold()?;
            let other = victim.as_ref().filter(|_| how.exchange);
            if !self.are_prepared(moves.as_ref(), [Some(&moved), other]) {
                moves_dirs = true;
                continue;
            }
            // Checks that what moves is the file that was prepared for the new directory.
            self.is_prepared(&there, &moved)?;
            if let (true, Some(victim)) = (how.exchange, &victim) {
                self.is_prepared(&back, victim)?;
            }
            // What is in a directory that will be replaced must hold still as well.
            if let Some(victim) = victim.as_ref().filter(|victim| is_dir(victim)) {
                let ino = self.number(victim);
                if !dirs.contains(&ino) {
                    dirs.push(ino);
                    continue;
                }
            }
            let moves = moves.as_mut();
            let ends = (&moved, victim.as_ref());
            let links = [source.link(), target.link()];
            for moving in [Some(&moved), other].into_iter().flatten() {
                self.tree.renames.note(self.number(moving), &links);
            }
            self.rename_locked(&source, &target, ends, how, moves)?;
            break;
        }
        // The locks are free again: opening a file takes them.
        self.save_dir_policies();
        if let Some(ino) = there.unfinished() {
            self.finish_crossing(ino, (&source.dir, &target.dir));
        }
        if let Some(ino) = back.unfinished() {
            self.finish_crossing(ino, (&target.dir, &source.dir));
        }
        Ok(())
    }

    /// Locks: the caller claims both directories and what the new name leads to.
    fn rename_locked(
        &self,
        source: &End,
        target: &End,
        (moved, victim): (&Handle, Option<&Handle>),
        how: RenameHow,
        moves: Option<&mut Moves<'_>>,
    ) -> Result<()> {
        match victim {
            Some(_) if how.no_replace => return Err(Errno::EXIST.into()),
            // Two names of one file: POSIX says to do nothing.
            Some(victim) if is_same(victim, moved) => return Ok(()),
            Some(victim) if how.exchange => {
                self.rename_entry(source, target, (moved, RenameFlags::EXCHANGE), moves)?;
                self.note_move(source, target, moved);
                self.note_move(target, source, victim);
                return Ok(());
            }
            None if how.exchange => return Err(VolumeError::NotFound),
            _ => {}
        }
        let emptied = match victim {
            Some(victim) if is_dir(victim) && is_dir(moved) => {
                let ino = self.number(victim);
                let remembered = self.remembered(&target.dir, &target.name.entry, ino);
                Some((self.empty_dir(victim)?, remembered))
            }
            _ => None,
        };
        let done = self.replace(source, target, (moved, victim), how, moves);
        match (&done, victim, &emptied) {
            (Err(_), _, Some((emptied, _))) => self.refill(emptied),
            (Ok(()), Some(victim), Some((_, remembered))) => {
                self.removed_dir(self.number(victim), *remembered);
            }
            _ => {}
        }
        done
    }

    fn replace(
        &self,
        source: &End,
        target: &End,
        (moved, victim): (&Handle, Option<&Handle>),
        how: RenameHow,
        moves: Option<&mut Moves<'_>>,
    ) -> Result<()> {
        let fresh_sidecar = self.prepare_sidecar(&target.dir, &target.name)?;
        let pinned = match victim {
            Some(victim) => self.pin_last(&target.dir, &target.name.entry, victim)?,
            None => Pinned::Not,
        };
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, victim.is_none());
        flags.set(RenameFlags::WHITEOUT, how.whiteout);
        if let Err(error) = self.rename_entry(source, target, (moved, flags), moves) {
            if let Some(victim) = victim {
                self.undo_pin(self.number(victim), pinned);
            }
            if fresh_sidecar {
                self.drop_sidecar(&target.dir, &target.name);
            }
            return Err(error);
        }
        if let Some(victim) = victim {
            let ino = self.number(victim);
            self.tree.inodes.drop_link(ino, target.dir.ino(), &target.name.entry);
            self.gone(victim, ino);
        }
        self.note_move(source, target, moved);
        if !how.whiteout {
            self.drop_sidecar(&source.dir, &source.name);
        }
        Ok(())
    }

    /// The rename itself, with the steps before and after it for directories.
    fn rename_entry(
        &self,
        source: &End,
        target: &End,
        (moved, flags): (&Handle, RenameFlags),
        moves: Option<&mut Moves<'_>>,
    ) -> Result<()> {
        let Some(moves) = moves else { return source.rename_to(target, flags) };
        // Before the rename as well as after it, so that no sync of the directory can miss it.
        self.tree.unsynced.add(target.dir.ino(), &target.name.entry);
        moves.announce(self)?;
        let renamed = source.rename_to(target, flags);
        // A rename that fails may have been done all the same.
        let is_at = |end: &End| {
            let found = beneath::hold(&*end.dir, &end.name.entry);
            found.is_ok_and(|found| is_same(&found, moved))
        };
        match renamed {
            Ok(()) => moves.conclude(self),
            Err(_) if is_at(target) => moves.conclude(self),
            Err(_) if is_at(source) => moves.withdraw(self),
            Err(_) => moves.leave(self),
        }
        renamed
    }

    /// Locks: takes the one of the descriptors if a directory moves.
    fn moving_dirs(&self, source: &End, target: &End, how: RenameHow) -> Result<Option<Moves<'_>>> {
        let there = (&source.dir, &source.name.entry, &target.dir, &target.name.entry);
        let back = (&target.dir, &target.name.entry, &source.dir, &source.name.entry);
        if how.exchange { self.moves(&[there, back]) } else { self.moves(&[there]) }
    }

    /// False if another directory came there since: then the move is prepared again.
    fn are_prepared(&self, moves: Option<&Moves<'_>>, moved: [Option<&Handle>; 2]) -> bool {
        let mut dirs = moved.into_iter().flatten().filter(|held| is_dir(held));
        dirs.all(|dir| moves.is_some_and(|moves| moves.include(self.number(dir))))
    }

    /// While this lives, nobody else wraps keys of files that move to another directory.
    fn claim_wraps(
        &self,
        source: &End,
        target: &End,
        moved: [Option<&Handle>; 2],
    ) -> Option<Changing<'_>> {
        let inos: Vec<u64> = moved.into_iter().flatten().map(|held| self.number(held)).collect();
        (source.dir.ino() != target.dir.ino()).then(|| self.tree.wraps.changing(&inos))
    }

    /// Prepares the move if the two directories have different keys.
    fn cross_over(
        &self,
        (source, moved): (&End, &Handle),
        (target, victim): (&End, Option<&Handle>),
        caller: Caller,
    ) -> Result<Crossing> {
        // Two names of one file: nothing will move.
        if victim.is_some_and(|victim| is_same(victim, moved)) {
            return Ok(Crossing::NONE);
        }
        let ino = self.number(moved);
        let key = self.cross(moved.found(), (&source.dir, &target.dir), caller)?;
        Ok(Crossing { prepared: Some(ino), key })
    }

    /// Refuses to move another inode than the one that was prepared, which somebody put in its place,
    /// and an inode that somebody has opened since who may not use its new key.
    fn is_prepared(&self, crossing: &Crossing, moved: &Handle) -> Result<()> {
        let ino = self.number(moved);
        if crossing.prepared.is_some_and(|prepared| prepared != ino) {
            return Err(VolumeError::Stale);
        }
        crossing.key.map_or(Ok(()), |key| self.suits_all(ino, key))
    }

    fn number(&self, held: &Handle) -> u64 {
        self.tree.inodes.shown(held.found().st_ino)
    }

    fn note_move(&self, source: &End, target: &End, moved: &Handle) {
        let ino = self.number(moved);
        let (from, to) =
            ((source.dir.ino(), &source.name.entry), (target.dir.ino(), &target.name.entry));
        self.tree.inodes.move_link(ino, from, to);
        // The new name of a directory is of no use without the descriptor that is for it.
        if is_dir(moved) {
            self.tree.unsynced.add(target.dir.ino(), &target.name.entry);
        }
    }
}

/// What was prepared for a move between directories.
struct Crossing {
    /// The inode that was looked at.
    prepared: Option<u64>,
    /// Its new key, if that is another one.
    key: Option<KeyId>,
}

impl Crossing {
    const NONE: Self = Self { prepared: None, key: None };

    /// The inode that needs [`Volume::finish_crossing`] after the move.
    fn unfinished(&self) -> Option<u64> {
        self.prepared.filter(|_| self.key.is_some())
    }
}

fn is_dir(held: &Handle) -> bool {
    FileKind::from_mode(held.found().st_mode) == Some(FileKind::Directory)
}

fn is_same(one: &Handle, other: &Handle) -> bool {
    one.found().st_ino == other.found().st_ino
}

impl End {
    fn hold(&self) -> Result<Option<Handle>> {
        match beneath::hold(&*self.dir, &self.name.entry) {
            Ok(held) => Ok(Some(held)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn link(&self) -> Link {
        Link { parent: self.dir.ino(), name: self.name.entry.clone() }
    }

    fn rename_to(&self, target: &Self, flags: RenameFlags) -> Result<()> {
        let (from, to) = (&self.name.entry, &target.name.entry);
        Ok(beneath::rename((&*self.dir, from), (&*target.dir, to), flags)?)
    }
}
