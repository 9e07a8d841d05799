//! Removing files and directories.
//!
//! A directory of the vault is never empty in the backing filesystem: it holds its descriptor.
//! So the descriptor file goes first and the directory after it. A crash in between leaves the
//! directory as it was, because the descriptor's mirror in the attribute is still there.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, fchmod, openat, statat, unlinkat};
use rustix::io::Errno;

use super::Volume;
use super::dir::{Dir, restore_descriptor};
use super::error::{Result, VolumeError};
use super::names::{BackingName, is_hidden};
use super::readdir::raw_names;
use crate::envelope::{DIR_FILE, SIDECAR_SUFFIX, TEMP_PREFIX, is_sidecar};

impl Volume {
    /// Removes a name that is not a directory's.
    ///
    /// # Errors
    /// `NotFound`, `Io(ISDIR)`, `ReadOnly`, and those of the backing filesystem.
    pub fn unlink(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = BackingName::existing(&dir, name)?;
        let _changing = self.tree.locks.changing(&[parent]);
        let stat = statat(&*dir, &*name.entry, AtFlags::SYMLINK_NOFOLLOW)?;
        let ino = self.tree.inodes.shown(stat.st_ino);
        let long_link = self.long_link_of(&dir, &name.entry, &stat);
        let pinned = self.pin_last(&dir, &name.entry, &stat)?;
        if let Err(error) = unlinkat(&*dir, &*name.entry, AtFlags::empty()) {
            self.undo_pin(ino, pinned);
            return Err(error.into());
        }
        self.tree.inodes.drop_link(ino, parent, &name.entry);
        if stat.st_nlink == 1 {
            self.files.removed(ino);
        }
        self.drop_sidecar(&dir, &name);
        if let Some(id) = long_link {
            self.remove_long_link(&id);
        }
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotEmpty`, `NotFound`, `Io(NOTDIR)`, `ReadOnly`, and those of the backing filesystem.
    pub fn rmdir(&self, parent: u64, name: &[u8]) -> Result<()> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = BackingName::existing(&dir, name)?;
        let stat = statat(&*dir, &*name.entry, AtFlags::SYMLINK_NOFOLLOW)?;
        let ino = self.tree.inodes.shown(stat.st_ino);
        let _changing = self.tree.locks.changing(&[parent, ino]);
        let victim = self.empty_dir(&dir, &name.entry)?;
        let pinned = self.pin_last(&dir, &name.entry, &stat)?;
        if let Err(error) = unlinkat(&*dir, &*name.entry, AtFlags::REMOVEDIR) {
            self.undo_pin(ino, pinned);
            self.refill(&victim);
            return Err(error.into());
        }
        self.removed_dir(ino);
        self.tree.inodes.drop_link(ino, parent, &name.entry);
        self.drop_sidecar(&dir, &name);
        Ok(())
    }

    /// Takes out of a directory what is not the user's, so that it can be removed or replaced.
    /// Locks: the caller claims the directory and its parent.
    ///
    /// # Errors
    /// `NotEmpty`; `Io(NOTDIR)` for what is no directory.
    pub(super) fn empty_dir(&self, parent: &Dir, entry: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let victim = match openat(parent, entry, flags, Mode::empty()) {
            Err(Errno::ACCESS) => unlock_dir(parent, entry)?,
            other => other?,
        };
        let names = raw_names(&victim)?;
        if names.iter().any(|name| !is_ours(name, &names)) {
            return Err(VolumeError::NotEmpty);
        }
        match clear(&victim, &names) {
            // Its own mode keeps its owner from changing it, but not from removing it.
            Err(VolumeError::Io(Errno::ACCESS)) => {
                fchmod(&victim, Mode::RWXU)?;
                clear(&victim, &names)?;
            }
            other => other?,
        }
        Ok(victim)
    }

    /// Puts the descriptor back after a removal that failed.
    pub(super) fn refill(&self, victim: &OwnedFd) {
        if let Err(error) = restore_descriptor(victim) {
            log::error!("the descriptor of a directory that was not removed is gone: {error}");
        }
    }

    /// Forgets what was held of a directory that is gone.
    pub(super) fn removed_dir(&self, ino: u64) {
        self.tree.dirs.remove(ino);
        self.tree.unsynced.remove(ino);
    }

    /// Pins the inode behind an entry if the kernel knows no other way to it.
    pub(super) fn pin_last(&self, dir: &Dir, entry: &[u8], stat: &Stat) -> Result<Pinned> {
        let ino = self.tree.inodes.shown(stat.st_ino);
        if !self.tree.inodes.needs_pin(ino, dir.ino(), entry) {
            return Ok(Pinned::Not);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.tree.inodes.pin(ino, openat(dir, entry, flags, Mode::empty())?);
        Ok(Pinned::Now)
    }

    /// Takes a pin back: the removal failed.
    pub(super) fn undo_pin(&self, ino: u64, pinned: Pinned) {
        if pinned == Pinned::Now {
            self.tree.inodes.unpin(ino);
        }
    }
}

/// Whether [`Volume::pin_last`] made a pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    Now,
    Not,
}

/// An ordinary user may remove a directory whose mode keeps him out of it.
fn unlock_dir(parent: &Dir, entry: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = openat(parent, entry, flags, Mode::empty())?;
    let path = super::place::proc_path(handle.as_fd());
    rustix::fs::chmodat(rustix::fs::CWD, &*path, Mode::RWXU, AtFlags::empty())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, &*path, flags, Mode::empty())?)
}

/// True for what a directory may hold and still be empty: the vault's own, except a sidecar whose
/// entry is there.
fn is_ours(name: &[u8], names: &[Box<[u8]>]) -> bool {
    if !is_hidden(name) {
        return false;
    }
    match name.strip_suffix(SIDECAR_SUFFIX.as_bytes()) {
        Some(entry) if is_sidecar(name) => !names.iter().any(|other| &**other == entry),
        _ => name == DIR_FILE.as_bytes() || name.starts_with(TEMP_PREFIX.as_bytes()),
    }
}

/// Removes the vault's own files from a directory, the descriptor last.
fn clear(dir: &OwnedFd, names: &[Box<[u8]>]) -> Result<()> {
    for name in names.iter().filter(|name| &***name != DIR_FILE.as_bytes()) {
        remove_any(dir, name)?;
    }
    match unlinkat(dir, DIR_FILE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn remove_any(dir: &OwnedFd, name: &[u8]) -> Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => super::readdir::remove_unfinished_dir(dir, name),
        other => Ok(other?),
    }
}
