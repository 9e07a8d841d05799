//! A walk over the backing tree, for jobs that visit every file: re-wrap, check, key reports.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir as Entries, FileType, OFlags, Stat};
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
    /// Its path below the vault: backing names.
    pub(super) path: PathBuf,
    /// Its entries but for descriptors, and what belongs to the volume.
    pub(super) entries: Vec<Entry>,
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
#[derive(Debug)]
pub(super) struct Walk {
    /// Parents, held open, names in them, and paths; the root has no name.
    waiting: VecDeque<(Arc<OwnedFd>, Option<BackingName>, PathBuf)>,
}

impl Walk {
    /// A walk that begins with `root`.
    pub(super) fn new(root: &OwnedFd) -> Result<Self> {
        let root = Arc::new(rustix::io::fcntl_dupfd_cloexec(root, 0)?);
        Ok(Self { waiting: VecDeque::from([(root, None, PathBuf::new())]) })
    }

    /// The next directory; `None` at the end. Left out are those that vanished meanwhile, or became
    /// something else, and what is mounted inside the vault.
    ///
    /// # Errors
    /// Those of a directory that cannot be read. The walk goes on behind it.
    pub(super) fn step(&mut self) -> Result<Option<Visit>, Errno> {
        // Depth first: the descriptors that are held are those of one path and its neighbours.
        while let Some((parent, name, path)) = self.waiting.pop_back() {
            let opened = match &name {
                Some(name) => beneath::open_dir(&parent, name),
                None => beneath::reopen_dir(&parent),
            };
            let read = opened.and_then(|fd| {
                let entries = read_entries(&fd, path.as_os_str().is_empty())?;
                Ok((Arc::new(fd), entries))
            });
            let (fd, entries) = match read {
                Ok(read) => read,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries.iter().filter(|entry| entry.role == Role::Directory) {
                let below = path.join(OsStr::from_bytes(entry.name.bytes()));
                self.waiting.push_back((fd.clone(), Some(entry.name.clone()), below));
            }
            return Ok(Some(Visit { fd, path, entries }));
        }
        Ok(None)
    }
}

impl Visit {
    /// The path of an entry below the vault.
    pub(super) fn path_of(&self, entry: &Entry) -> PathBuf {
        self.path.join(Path::new(OsStr::from_bytes(entry.name.bytes())))
    }

    /// The entry's attributes, if it is still there.
    pub(super) fn stat(&self, entry: &Entry) -> Result<Option<Stat>> {
        match beneath::stat(&self.fd, &entry.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
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
