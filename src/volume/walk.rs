//! A walk over the backing tree, for jobs that visit every file: re-wrap, check, key reports.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir as Entries, FileType, OFlags, Stat, fstat};
use rustix::io::Errno;

use super::beneath::{self, BackingName, Name};
use super::error::Result;
use super::handle::Handle;
use super::open_file::quietly;
use super::session;
use crate::envelope::{DIR_FILE, TEMP_PREFIX, is_sidecar};

/// A directory on the way.
#[derive(Debug)]
pub(super) struct Visit {
    /// The directory, open.
    pub(super) fd: Arc<OwnedFd>,
    /// The one above it, where the walk did not begin with this one.
    pub(super) parent: Option<Arc<OwnedFd>>,
    /// How far below the beginning of the walk it is.
    pub(super) depth: usize,
    /// Its entries but for descriptors, and what belongs to the volume.
    pub(super) entries: Vec<Entry>,
    trail: Arc<Trail>,
}

/// The names that lead to a directory, which it shares with those beside it: a path of its own for
/// each would take memory by the square of the depth.
#[derive(Debug)]
struct Trail {
    above: Option<Arc<Trail>>,
    name: Option<BackingName>,
}

/// An entry of a directory on the way.
#[derive(Debug)]
pub(super) struct Entry {
    /// The backing name.
    pub(super) name: BackingName,
    /// What it is.
    pub(super) role: Role,
}

/// What an entry of a vault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A file with contents.
    File,
    /// A directory of the user's.
    Directory,
    /// A link, fifo, socket or device.
    Other,
    /// The file that keeps a long name.
    Sidecar,
    /// What a crash left of something that was being made.
    Temporary,
}

/// Directories still to be visited, parents before children.
///
/// Whoever can write to the vault can make a chain of directories of any depth. So those on the way
/// are kept by name and inode, and only [`HELD`] of them open; a deeper one is opened again from the
/// one below it.
#[derive(Debug)]
pub(super) struct Walk {
    root: OwnedFd,
    /// The directories from the beginning to the last one that was visited; empty before the first.
    levels: Vec<Level>,
    begun: bool,
}

/// A directory on the way down.
#[derive(Debug)]
struct Level {
    trail: Arc<Trail>,
    inode: (u64, u64),
    fd: Option<Arc<OwnedFd>>,
    /// The directories in it that are still to be visited.
    waiting: Vec<BackingName>,
}

impl Walk {
    /// A walk that begins with `root`.
    pub(super) fn new(root: &OwnedFd) -> Result<Self> {
        let root = rustix::io::fcntl_dupfd_cloexec(root, 0)?;
        Ok(Self { root, levels: Vec::new(), begun: false })
    }

    /// The next directory; `None` at the end. Left out are those that vanished meanwhile, or became
    /// something else, and what is mounted inside the vault.
    ///
    /// # Errors
    /// Those of a directory that cannot be read. The walk goes on behind it.
    pub(super) fn step(&mut self) -> Result<Option<Visit>, Errno> {
        if !self.begun {
            self.begun = true;
            return self.visit(None, beneath::reopen_dir(&self.root)).map(Some);
        }
        // Depth first.
        while let Some(last) = self.levels.last_mut() {
            let Some(name) = last.waiting.pop() else {
                self.ascend();
                continue;
            };
            let Some(parent) = last.fd.clone() else { continue };
            let opened = beneath::open_dir(&parent, &name);
            match self.visit(Some((parent, name)), opened) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    fn visit(
        &mut self,
        entry: Option<(Arc<OwnedFd>, BackingName)>,
        opened: Result<OwnedFd, Errno>,
    ) -> Result<Visit, Errno> {
        let fd = Arc::new(opened?);
        let depth = self.levels.len();
        let entries = read_entries(&fd, entry.is_none())?;
        let inode = inode_of(&fd)?;
        let above = self.levels.last().map(|level| Arc::clone(&level.trail));
        let (parent, name) = entry.unzip();
        let trail = Arc::new(Trail { above, name });
        let dirs = entries.iter().filter(|entry| entry.role == Role::Directory);
        let waiting = dirs.map(|entry| entry.name.clone()).collect();
        if depth > HELD
            && let Some(above) = self.levels.last_mut()
        {
            above.fd = None;
        }
        let level = Level { trail: Arc::clone(&trail), inode, fd: Some(Arc::clone(&fd)), waiting };
        self.levels.push(level);
        Ok(Visit { fd, parent, depth, entries, trail })
    }

    /// Goes on in the directory above the last one. Where that has been moved meanwhile, so that its
    /// names lead elsewhere, what is left of it is left out.
    fn ascend(&mut self) {
        let Some(done) = self.levels.pop() else { return };
        let Some(last) = self.levels.last() else { return };
        if last.fd.is_some() {
            return;
        }
        let above = done.fd.and_then(|fd| beneath::above(&fd).ok());
        let above = above.filter(|fd| inode_of(fd) == Ok(last.inode));
        let needed = !last.waiting.is_empty();
        let found = above.map(Arc::new);
        let found = found.or_else(|| needed.then(|| self.descend_again()).flatten());
        if let Some(last) = self.levels.last_mut() {
            match found {
                Some(fd) => last.fd = Some(fd),
                None => last.waiting.clear(),
            }
        }
    }

    /// The last directory, found by its names from the deepest one that is still open.
    fn descend_again(&self) -> Option<Arc<OwnedFd>> {
        let from = self.levels.iter().rposition(|level| level.fd.is_some())?;
        let mut fd = self.levels.get(from)?.fd.clone()?;
        for level in self.levels.iter().skip(from + 1) {
            let below = beneath::open_dir(&fd, level.trail.name.as_ref()?).ok()?;
            if inode_of(&below) != Ok(level.inode) {
                return None;
            }
            fd = Arc::new(below);
        }
        Some(fd)
    }
}

fn inode_of(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

impl Drop for Trail {
    /// One after the other: a chain of a hundred thousand names would take as many stack frames.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut trail) = above.and_then(Arc::into_inner) {
            above = trail.above.take();
        }
    }
}

impl Visit {
    /// Its path below the beginning of the walk: backing names.
    pub(super) fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut trail = Some(&self.trail);
        while let Some(level) = trail {
            names.extend(&level.name);
            trail = level.above.as_ref();
        }
        names.iter().rev().map(|name| OsStr::from_bytes(name.bytes())).collect()
    }

    /// Its name in the directory above; `None` where the walk began.
    pub(super) fn name(&self) -> Option<&BackingName> {
        self.trail.name.as_ref()
    }

    /// The path of an entry.
    pub(super) fn path_of(&self, entry: &Entry) -> PathBuf {
        self.path().join(Path::new(OsStr::from_bytes(entry.name.bytes())))
    }

    /// The entry's attributes, if it is still there, and not hidden by a mount.
    pub(super) fn stat(&self, entry: &Entry) -> Result<Option<Stat>> {
        match beneath::stat(&self.fd, &entry.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT | Errno::XDEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes hold of what the entry is now; `None` if it has gone.
    pub(super) fn hold(&self, entry: &Entry) -> Result<Option<Handle>> {
        match beneath::hold(&self.fd, &entry.name) {
            Ok(held) => Ok(Some(held)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the regular file that the entry is.
    ///
    /// # Errors
    /// `STALE` if it has become something else.
    pub(super) fn open(&self, entry: &Entry, flags: OFlags) -> std::result::Result<OwnedFd, Errno> {
        let held = beneath::hold(&self.fd, &entry.name)?;
        quietly(flags, |flags| held.open_file(flags))
    }
}

fn read_entries(fd: &OwnedFd, root: bool) -> Result<Vec<Entry>, Errno> {
    let mut entries = Vec::new();
    // A copy of the descriptor: opening "." would ask the directory's mode again.
    for entry in Entries::new(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)? {
        let entry = entry?;
        // The dots, and what no filesystem should give.
        let Some(name) = BackingName::new(entry.file_name().to_bytes()) else { continue };
        let text = name.bytes();
        if text.starts_with(DIR_FILE.as_bytes()) || (root && Name::from(&name) == session::META) {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = beneath::stat(fd, &name);
                stat.map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
            }
            known => known,
        };
        let role = match kind {
            _ if text.starts_with(TEMP_PREFIX.as_bytes()) => Role::Temporary,
            FileType::RegularFile if is_sidecar(text) => Role::Sidecar,
            FileType::RegularFile => Role::File,
            FileType::Directory => Role::Directory,
            _ => Role::Other,
        };
        entries.push(Entry { name, role });
    }
    Ok(entries)
}

/// Directories on the way that are kept open; deeper ones are opened again.
const HELD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_of_any_length_is_dropped_without_a_deep_stack() {
        let name = BackingName::new(*b"a");
        let mut trail = Arc::new(Trail { above: None, name: None });
        for _ in 0..200_000 {
            trail = Arc::new(Trail { above: Some(trail), name: name.clone() });
        }
        drop(trail);
    }
}
