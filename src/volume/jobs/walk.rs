//! A walk over the backing tree, for jobs that visit every file: re-wrap, check, key reports.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Dir as Entries, FileType, Stat, fstat};
use rustix::io::Errno;

use crate::envelope::{DIR_FILE, TEMP_PREFIX, is_sidecar};
use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::handle::Handle;
use crate::volume::model::error::Result;
use crate::volume::ops::reach::leftovers::holds_more;
use crate::volume::session::lock;

/// A directory on the way.
#[derive(Debug)]
pub(in crate::volume) struct Visit {
    /// The directory, open.
    pub(in crate::volume) fd: Arc<OwnedFd>,
    /// The one above it, unless the walk began with this one.
    pub(in crate::volume) parent: Option<Arc<OwnedFd>>,
    /// How far below the beginning of the walk it is.
    pub(in crate::volume) depth: usize,
    /// Its entries, except descriptors and what belongs to the volume.
    pub(in crate::volume) entries: Vec<Entry>,
    trail: Arc<Trail>,
    vanished: Arc<AtomicBool>,
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
pub(in crate::volume) struct Entry {
    /// The backing name.
    pub(in crate::volume) name: BackingName,
    /// What it is.
    pub(in crate::volume) role: Role,
}

/// What an entry of a vault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Role {
    /// A file with contents.
    File,
    /// A directory of the user's.
    Directory,
    /// A link, fifo, socket or device.
    Other,
    /// The file that keeps a long name.
    Sidecar,
    /// What a crash left of something that was being made; or a directory under a name that no mount
    /// gives one.
    Temporary,
}

/// Directories still to be visited, parents before children.
///
/// Whoever can write to the vault can make a chain of directories of any depth. So those on the way
/// are kept by name and inode, and only [`HELD`] of them open; a deeper one is opened again from the
/// one below it.
#[derive(Debug)]
pub(in crate::volume) struct Walk {
    root: OwnedFd,
    /// The directories from the beginning to the last one that was visited; empty before the first.
    levels: Vec<Level>,
    begun: bool,
    /// The names that lead to where it begins; none for the root.
    above: Option<Arc<Trail>>,
    mounted: Vec<PathBuf>,
    lost: Vec<PathBuf>,
    nameless: Vec<PathBuf>,
    vanished: Arc<AtomicBool>,
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
    pub(in crate::volume) fn new(root: &OwnedFd) -> Result<Self> {
        Self::at(root, Vec::new())
    }

    /// A walk that begins with the directory `top`, to which these names lead.
    pub(in crate::volume) fn at(top: impl AsFd, names: Vec<BackingName>) -> Result<Self> {
        Ok(Self {
            root: rustix::io::fcntl_dupfd_cloexec(top, 0)?,
            levels: Vec::new(),
            begun: false,
            above: Trail::along(names),
            mounted: Vec::new(),
            lost: Vec::new(),
            nameless: Vec::new(),
            vanished: Arc::default(),
        })
    }

    /// Takes the directories that have been left out, because something is mounted on them.
    pub(in crate::volume) fn take_mounted(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.mounted)
    }

    /// Takes the directories of which a part has been left out: they were moved, and are too deep to be
    /// kept open.
    pub(in crate::volume) fn take_lost(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.lost)
    }

    /// Takes the directories with something in them that have been left out, because they have only the
    /// name that a directory has while it is being made.
    pub(in crate::volume) fn take_nameless(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.nameless)
    }

    /// True if a name has gone, or has led to something else, since its directory was listed.
    pub(in crate::volume) fn has_vanished(&self) -> bool {
        self.vanished.load(Ordering::Relaxed)
    }

    /// The next directory; `None` at the end. Directories that vanished meanwhile or became something
    /// else, and mounts inside of the vault, are left out: the walk knows of these, and whoever draws
    /// conclusions from what was not seen must ask.
    ///
    /// # Errors
    /// Those of a directory that cannot be read. The walk goes on behind it.
    pub(in crate::volume) fn step(&mut self) -> Result<Option<Visit>, Errno> {
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
            if opened.as_ref().is_err_and(|error| *error == Errno::XDEV) {
                self.mounted.push(last.trail.path().join(name.path()));
                continue;
            }
            match self.visit(Some((parent, name)), opened) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                    self.vanished.store(true, Ordering::Relaxed);
                }
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
        let entries = read_entries(&fd, entry.is_none() && self.above.is_none())?;
        let inode = inode_of(&fd)?;
        let above = self.levels.last().map(|level| &level.trail).or(self.above.as_ref()).cloned();
        let (parent, name) = entry.unzip();
        let trail = Arc::new(Trail { above, name });
        let dirs = entries.iter().filter(|entry| entry.role == Role::Directory);
        let waiting = dirs.map(|entry| entry.name.clone()).collect();
        if depth > HELD
            && let Some(above) = self.levels.last_mut()
        {
            above.fd = None;
        }
        for entry in entries.iter().filter(|entry| entry.role == Role::Temporary) {
            if holds_something(&fd, &entry.name) {
                self.nameless.push(trail.path().join(entry.name.path()));
            }
        }
        let level = Level { trail: Arc::clone(&trail), inode, fd: Some(Arc::clone(&fd)), waiting };
        self.levels.push(level);
        let vanished = Arc::clone(&self.vanished);
        Ok(Visit { fd, parent, depth, entries, trail, vanished })
    }

    /// Goes on in the directory above the last one. If that was moved meanwhile, so that its names lead
    /// elsewhere, the rest of it is left out.
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
                None if needed => {
                    self.lost.push(last.trail.path());
                    last.waiting.clear();
                }
                None => {}
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

impl Trail {
    fn along(names: Vec<BackingName>) -> Option<Arc<Self>> {
        let step = |above, name| Some(Arc::new(Self { above, name: Some(name) }));
        names.into_iter().fold(None, step)
    }

    fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut trail = Some(self);
        while let Some(level) = trail {
            names.extend(&level.name);
            trail = level.above.as_deref();
        }
        names.iter().rev().map(|name| name.path()).collect()
    }
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
    /// A look at one file in a directory to which these names lead.
    pub(in crate::volume) fn of_file(
        fd: OwnedFd,
        names: Vec<BackingName>,
        name: BackingName,
    ) -> Self {
        let entries = vec![Entry { name, role: Role::File }];
        let trail = Arc::new(Trail { above: Trail::along(names), name: None });
        let (fd, vanished) = (Arc::new(fd), Arc::default());
        Self { fd, parent: None, depth: 0, entries, trail, vanished }
    }

    /// Its path below the beginning of the walk: backing names.
    pub(in crate::volume) fn path(&self) -> PathBuf {
        self.trail.path()
    }

    /// Its name in the directory above; `None` where the walk began.
    pub(in crate::volume) fn name(&self) -> Option<&BackingName> {
        self.trail.name.as_ref()
    }

    /// The path of an entry.
    pub(in crate::volume) fn path_of(&self, entry: &Entry) -> PathBuf {
        self.path().join(entry.name.path())
    }

    /// The entry's attributes, if it is still there, and not hidden by a mount.
    pub(in crate::volume) fn stat(&self, entry: &Entry) -> Result<Option<Stat>> {
        match beneath::stat(&self.fd, &entry.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(self.vanish()),
            Err(Errno::XDEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes hold of what the entry is now; `None` if it has gone, or a file has become something
    /// else.
    pub(in crate::volume) fn hold(&self, entry: &Entry) -> Result<Option<Handle>> {
        match beneath::hold(&self.fd, &entry.name) {
            Ok(held) => {
                let is_file = FileType::from_raw_mode(held.found().st_mode).is_file();
                Ok(if entry.role == Role::File && !is_file { self.vanish() } else { Some(held) })
            }
            Err(Errno::NOENT) => Ok(self.vanish()),
            Err(error) => Err(error.into()),
        }
    }

    fn vanish<T>(&self) -> Option<T> {
        self.vanished.store(true, Ordering::Relaxed);
        None
    }
}

/// True of a directory under this name that may have more in it than its descriptor.
fn holds_something(dir: &OwnedFd, name: &BackingName) -> bool {
    match beneath::open_dir(dir, name) {
        Ok(found) => holds_more(found).unwrap_or(true),
        // No directory; or it has its name now, or is gone.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => false,
        Err(_) => true,
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
        if root && Name::from(&name) == lock::META {
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
            // A directory with the name of a descriptor is none: a walk that left it out would take what
            // is in it for absent.
            FileType::Directory if text.starts_with(DIR_FILE.as_bytes()) => Role::Temporary,
            _ if text.starts_with(DIR_FILE.as_bytes()) => continue,
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
