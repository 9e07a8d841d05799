//! Removing files and directories.
//!
//! A directory of the vault is never empty in the backing filesystem: it holds its descriptor.
//! So the descriptor file goes first and the directory after it. A crash in between leaves the
//! directory as it was, because the descriptor's mirror in the attribute is still there.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::Timespec;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::envelope::{SIDECAR_SUFFIX, TEMP_PREFIX, is_hidden, is_sidecar};
use crate::id::{DirId, DirPlace};
use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::handle::Handle;
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::own_file::{self, KeptTime};
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::{self, restore_descriptor};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::Expected;
use crate::volume::namespace::names::EntryName;
use crate::volume::ops::reach::leftovers::remove_unfinished_dir;

impl Volume {
    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// `NotFound`, `Io(ISDIR)`, `ReadOnly`, and those of the backing filesystem.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = EntryName::existing(&dir, name)?;
        let _changing = self.tree.locks.changing(&[parent]);
        let held = beneath::hold(&*dir, &name.entry)?;
        let ino = self.tree.inodes.shown(held.found().st_ino);
        let pinned = self.pin_last(&dir, &name.entry, &held)?;
        self.tree.renames.note_removal();
        if let Err(error) = beneath::remove(&*dir, &name.entry) {
            self.undo_pin(ino, pinned);
            return Err(error.into());
        }
        self.tree.inodes.drop_link(ino, parent, &name.entry);
        self.drop_sidecar(&dir, &name);
        self.gone(&held, ino);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, `NotFound`, `Io(NOTDIR)`, `ReadOnly`, and those of the backing filesystem.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = EntryName::existing(&dir, name)?;
        let held = beneath::hold(&*dir, &name.entry)?;
        let ino = self.tree.inodes.shown(held.found().st_ino);
        let _changing = self.tree.locks.changing(&[parent, ino]);
        let remembered = self.remembered(&dir, &name.entry, ino);
        let victim = self.empty_dir(&held)?;
        let pinned = self.pin_last(&dir, &name.entry, &held)?;
        self.tree.renames.note_removal();
        if let Err(error) = beneath::remove_dir(&*dir, &name.entry) {
            self.undo_pin(ino, pinned);
            self.refill(&victim);
            return Err(error.into());
        }
        self.removed_dir(ino, remembered);
        self.tree.inodes.drop_link(ino, parent, &name.entry);
        self.drop_sidecar(&dir, &name);
        Ok(())
    }

    /// Removes what is not the user's from a directory, so that it can be removed or replaced. A
    /// failure undoes what was done. Locks: the caller claims the directory and its parent.
    ///
    /// # Errors
    /// `NotEmpty`; `Io(NOTDIR)` for what is no directory.
    pub(in crate::volume) fn empty_dir(&self, held: &Handle) -> Result<Emptied> {
        let dir = held.open_dir()?;
        let victim = Emptied { mtime: own_file::mtime(dir.as_fd()), dir };
        clear_if_empty(&victim.dir).inspect_err(|_| victim.kept().put_back())?;
        Ok(victim)
    }

    /// Puts the descriptor back after a removal that failed. Locks: as for [`Self::empty_dir`].
    pub(in crate::volume) fn refill(&self, victim: &Emptied) {
        if let Err(error) = restore_descriptor(victim.dir.as_fd(), &victim.kept()) {
            log::error!("the descriptor of a directory that was not removed is gone: {error}");
        }
    }

    /// The id of a directory that is to be removed, and its place, if something is remembered outside the
    /// vault.
    /// One that does not count where it is may be a copy of one that stays. Locks: the caller claims
    /// the directory above.
    pub(in crate::volume) fn remembered(
        &self,
        parent: &Arc<Dir>,
        entry: &BackingName,
        ino: u64,
    ) -> Option<(DirId, DirPlace)> {
        if self.tree.anchor.is_empty() {
            return None;
        }
        let dir = self.entry_dir(parent, entry).ok().filter(|dir| dir.ino() == ino)?;
        let Expected::At(place, _) = dir.expected() else { return None };
        dir.descriptor().ok().map(|found| (found.dir, *place))
    }

    /// Forgets what was held of a directory that is gone, which is `remembered` by this id and place.
    pub(in crate::volume) fn removed_dir(&self, ino: u64, remembered: Option<(DirId, DirPlace)>) {
        if let Some((id, place)) = remembered {
            self.tree.anchor.removed(id);
            self.tree.anchor.occupants.leave(place, id);
        }
        self.tree.dirs.remove(ino);
        self.tree.unsynced.remove(ino);
        self.tree.errors.remove(ino);
    }

    /// A name of `held` is gone: if it was the last, removes what belongs to the inode.
    pub(in crate::volume) fn gone(&self, held: &Handle, ino: u64) {
        // Another inode may have lost its name, if somebody exchanged the names.
        if held.stat().is_ok_and(|now| now.st_nlink == 0) {
            self.files.removed(ino);
        }
    }

    /// Pins the inode behind an entry if the kernel knows no other way to it.
    pub(in crate::volume) fn pin_last(
        &self,
        dir: &Dir,
        entry: &BackingName,
        held: &Handle,
    ) -> Result<Pinned> {
        let ino = self.tree.inodes.shown(held.found().st_ino);
        if !self.tree.inodes.needs_pin(ino, dir.ino(), entry) {
            return Ok(Pinned::Not);
        }
        self.tree.inodes.pin(ino, fcntl_dupfd_cloexec(held, 0)?);
        Ok(Pinned::Now)
    }

    /// Takes a pin back: the removal failed.
    pub(in crate::volume) fn undo_pin(&self, ino: u64, pinned: Pinned) {
        if pinned == Pinned::Now {
            self.tree.inodes.unpin(ino);
        }
    }
}

/// A directory in which nothing is left that is not a user's. If it stays, he does not see that.
#[derive(Debug)]
pub(in crate::volume) struct Emptied {
    dir: OwnedFd,
    mtime: Option<Timespec>,
}

impl Emptied {
    fn kept(&self) -> KeptTime<'_, impl Fn() -> bool> {
        KeptTime::since(self.dir.as_fd(), self.mtime, || true)
    }
}

/// Whether [`Volume::pin_last`] made a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Pinned {
    Now,
    Not,
}

fn clear_if_empty(victim: &OwnedFd) -> Result<()> {
    let names = raw_names(victim)?;
    if names.iter().any(|name| !is_ours(name, &names)) {
        return Err(VolumeError::NotEmpty);
    }
    clear(victim, &names)
}

/// True for what a directory may hold and still be empty: the vault's own, except a sidecar whose
/// entry is there.
fn is_ours(name: &BackingName, names: &[BackingName]) -> bool {
    let text = name.bytes();
    if !is_hidden(text) {
        return false;
    }
    match text.strip_suffix(SIDECAR_SUFFIX.as_bytes()) {
        Some(entry) if is_sidecar(text) => !names.iter().any(|other| other.bytes() == entry),
        _ => is_descriptor(name) || text.starts_with(TEMP_PREFIX.as_bytes()),
    }
}

/// The descriptor, or what a crash left of one that was to replace it.
fn is_descriptor(name: &BackingName) -> bool {
    Name::from(name) == descriptor::FILE || descriptor::FILE.with(".new").as_ref() == Some(name)
}

/// Removes the vault's own files from a directory, the descriptor last.
fn clear(dir: &OwnedFd, names: &[BackingName]) -> Result<()> {
    for name in names.iter().filter(|name| Name::from(*name) != descriptor::FILE) {
        match beneath::remove(dir, name) {
            Err(Errno::ISDIR) => remove_unfinished_dir(dir, name)?,
            other => other?,
        }
    }
    match beneath::remove(dir, descriptor::FILE) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
