//! From an inode number to something that a system call can act on.
//!
//! An inode is reached through a directory that is held open and the backing name in it, or
//! through the descriptor that pinned it when its last known link went. A [`Location`] keeps the
//! entry still (the directory's lock, for reading) for as long as it lives: from other requests, not
//! from whoever else writes to the vault. So nothing is changed at a location: what is there is held
//! ([`Volume::hold`]), and compared with the inode that was meant.

use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use rustix::fs::Stat;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::handle::Handle;
use crate::volume::backing::identity::InodeStat;
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::misplaced::Misplaced;
use crate::volume::namespace::descriptor::Copies;
use crate::volume::namespace::dir::{Dir, Opener};
use crate::volume::namespace::dir_cache::Era;
use crate::volume::namespace::dir_rules::Expected;
use crate::volume::namespace::inode::{Link, ROOT, Whereabouts};

/// How often an entry that moved away under us is looked for again.
const ATTEMPTS: usize = 8;

/// Where an inode is; it stays there while this lives, as far as this process can see to it.
#[derive(Debug)]
struct Location<'a> {
    at: Route<'a>,
    _held: Option<RwLockReadGuard<'a, ()>>,
}

#[derive(Debug)]
enum Route<'a> {
    Entry(Arc<Dir>, BackingName),
    Pinned(Arc<OwnedFd>),
    Root(BorrowedFd<'a>),
}

/// Whether a directory that seems misplaced is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// It is, if a descriptor changed meanwhile: the copies may be from before that change, and what they
    /// are compared with from after it.
    Repeatable,
    /// It is not: the finding counts.
    Last,
}

impl Location<'_> {
    fn look(&self) -> Result<InodeStat, Errno> {
        match &self.at {
            Route::Entry(dir, name) => beneath::look(dir, name),
            Route::Pinned(fd) => InodeStat::of(fd),
            Route::Root(fd) => InodeStat::of(fd),
        }
    }

    fn hold(&self) -> Result<Handle, Errno> {
        match &self.at {
            Route::Entry(dir, name) => beneath::hold(dir, name),
            Route::Pinned(fd) => Handle::of(fcntl_dupfd_cloexec(fd, 0)?),
            Route::Root(fd) => Handle::of(fcntl_dupfd_cloexec(fd, 0)?),
        }
    }
}

impl Volume {
    /// Where `ino` is. Locks: the location holds its directory's lock for reading.
    ///
    /// # Errors
    /// `Stale` if no way to it is known.
    fn locate(&self, ino: u64) -> Result<Location<'_>> {
        if ino == ROOT {
            return Ok(Location { at: Route::Root(self.tree.root()), _held: None });
        }
        for _ in 0..ATTEMPTS {
            match self.tree.inodes.whereabouts(ino).ok_or(VolumeError::Stale)? {
                Whereabouts::Pinned(fd) => {
                    return Ok(Location { at: Route::Pinned(fd), _held: None });
                }
                Whereabouts::Entry(link) => {
                    let Some(dir) = self.link_dir(ino, &link)? else { continue };
                    let held = self.tree.locks.reading(link.parent);
                    if self.tree.inodes.has_link(ino, &link) {
                        let at = Route::Entry(dir, link.name);
                        return Ok(Location { at, _held: Some(held) });
                    }
                }
            }
        }
        Err(VolumeError::Stale)
    }

    /// The directory `ino`, held open. Locks: takes none that it keeps.
    ///
    /// # Errors
    /// `Stale` if no way to it is known; those of the backing filesystem.
    pub(in crate::volume) fn dir(&self, ino: u64) -> Result<Arc<Dir>> {
        if let Some(dir) = self.tree.dirs.find(ino) {
            return Ok(dir);
        }
        // The ancestors that are not open, nearest first. Not by recursion: trees can be deep.
        for _ in 1..ATTEMPTS {
            match self.open_with_ancestors(ino, Attempt::Repeatable) {
                // A directory above it moved meanwhile, or was dropped from the cache, or descriptors
                // changed and it seems out of its place.
                Err(VolumeError::Stale) => {}
                other => return other,
            }
        }
        self.open_with_ancestors(ino, Attempt::Last)
    }

    fn open_with_ancestors(&self, ino: u64, attempt: Attempt) -> Result<Arc<Dir>> {
        // Taken before the first directory above is looked at, by which those below it are judged.
        let mut begun = self.tree.dirs.era();
        let (mut closed, mut seen) = (vec![ino], HashSet::from([ino]));
        let mut above = None;
        while let Some(parent) = closed.last().and_then(|ino| self.parent(*ino)) {
            above = self.tree.dirs.find(parent);
            if above.is_some() || !seen.insert(parent) {
                break;
            }
            closed.push(parent);
        }
        // Each is handed to the next: the cache may have lost it by then.
        for ino in closed.into_iter().rev() {
            above = Some(self.open_dir(ino, above, &mut begun, attempt)?);
        }
        above.ok_or(VolumeError::Stale)
    }

    fn parent(&self, ino: u64) -> Option<u64> {
        match self.tree.inodes.whereabouts(ino)? {
            Whereabouts::Entry(link) => Some(link.parent),
            Whereabouts::Pinned(_) => None,
        }
    }

    /// Opens a directory whose parent is open, or soon will be again. Also `Stale` where it seems out of
    /// its place and descriptors have changed since `begun`, unless this is the last attempt; what that
    /// finds serves this request and no other.
    fn open_dir(
        &self,
        ino: u64,
        above: Option<Arc<Dir>>,
        begun: &mut Era,
        attempt: Attempt,
    ) -> Result<Arc<Dir>> {
        let dir = if ino == ROOT { self.open_root()? } else { self.open_known_dir(ino, above)? };
        match dir.misplaced() {
            None => {
                self.remember_place(&dir);
                return Ok(self.tree.dirs.add(Arc::new(dir), *begun));
            }
            // A twin is looked at again each time: it counts as soon as the other one has gone.
            Some(Misplaced::Twin) => return Ok(Arc::new(dir)),
            Some(_) if attempt == Attempt::Last => {}
            Some(_) if self.tree.dirs.has_changed_since(*begun) => return Err(VolumeError::Stale),
            Some(_) => {}
        }
        dir.sound_alarm();
        Ok(self.tree.dirs.add_alone(Arc::new(dir), begun))
    }

    fn open_root(&self) -> Result<Dir> {
        let fd = beneath::reopen_dir(self.tree.root())?;
        let copies = Copies::read(&fd);
        Dir::open(ROOT, fd, copies, Expected::root(self.id()), self.opener())
    }

    /// Also `Stale` if `above` is not the directory that it is in, and that one is not open.
    fn open_known_dir(&self, ino: u64, above: Option<Arc<Dir>>) -> Result<Dir> {
        for _ in 0..ATTEMPTS {
            let dir = match self.tree.inodes.whereabouts(ino).ok_or(VolumeError::Stale)? {
                Whereabouts::Pinned(fd) => {
                    let held = Handle::of(fcntl_dupfd_cloexec(fd, 0)?)?;
                    let fd = held.open_dir()?;
                    let copies = Copies::read(&fd);
                    Some(Dir::open(ino, fd, copies, Expected::Removed, self.opener())?)
                }
                Whereabouts::Entry(link) => {
                    let given = above.clone().filter(|above| above.ino() == link.parent);
                    let parent = given.or_else(|| self.tree.dirs.find(link.parent));
                    let parent = parent.ok_or(VolumeError::Stale)?;
                    self.open_entry(ino, &parent, link)?
                }
            };
            if let Some(dir) = dir {
                return Ok(dir);
            }
        }
        Err(VolumeError::Stale)
    }

    /// `None` if the link does not lead to `ino`, or not any more. Locks: that of the parent, for
    /// moments.
    fn open_entry(&self, ino: u64, parent: &Arc<Dir>, link: Link) -> Result<Option<Dir>> {
        let still = self.tree.locks.reading(link.parent);
        if !self.tree.inodes.has_link(ino, &link) {
            return Ok(None);
        }
        let held = beneath::hold(parent, &link.name)?;
        drop(still);
        match self.tree.as_known(&held, ino) {
            Ok(()) => {}
            Err(VolumeError::Stale) => return Ok(None),
            Err(error) => return Err(error),
        }
        let fd = held.open_dir()?;
        // Its places are read while nobody can rename it.
        let still = self.tree.locks.reading(link.parent);
        if !self.tree.inodes.has_link(ino, &link) {
            return Ok(None);
        }
        let copies = Copies::read(&fd);
        drop(still);
        let expected = parent.authority().expects(link.name.bytes());
        let dir = self.only_twin(Dir::open(ino, fd, copies, expected, self.opener())?);
        self.finish_rename(&dir, parent, &link.name);
        Ok(Some(dir.found_by(link)))
    }

    /// What opening a directory takes.
    pub(in crate::volume) fn opener(&self) -> Opener<'_> {
        let (anchor, locks) = (&self.tree.anchor, &self.tree.locks);
        let read_only = self.tree.options.read_only;
        Opener { keyring: &self.keyring, anchor, locks, read_only }
    }

    /// The directory of a link; a link whose directory is no longer known is dropped.
    fn link_dir(&self, ino: u64, link: &Link) -> Result<Option<Arc<Dir>>> {
        match self.dir(link.parent) {
            Ok(dir) => Ok(Some(dir)),
            Err(VolumeError::Stale) => {
                self.tree.inodes.drop_link(ino, link.parent, &link.name);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The backing attributes of `ino`.
    ///
    /// # Errors
    /// `Stale` if what is there is not `ino`; those of the backing filesystem.
    pub(in crate::volume) fn stat(&self, ino: u64) -> Result<Stat> {
        let seen = self.locate(ino)?.look()?;
        self.tree.same_inode(&seen, ino)?;
        Ok(seen.stat)
    }

    /// The same, for the kernel, which is told the owner. Locks: that of the location before that of
    /// owners, as in a lookup.
    pub(in crate::volume) fn stat_to_tell(&self, ino: u64) -> Result<Stat> {
        let location = self.locate(ino)?;
        let _telling = self.tree.telling();
        let seen = location.look()?;
        self.tree.same_inode(&seen, ino)?;
        self.tree.inodes.note_owner(ino, self.tree.identity(&seen));
        Ok(seen.stat)
    }

    /// Takes hold of `ino`, to act on it whatever becomes of its names.
    ///
    /// # Errors
    /// `Stale` if what is there is not `ino`, or belongs to somebody else than the kernel was told;
    /// those of the backing filesystem.
    pub(in crate::volume) fn hold(&self, ino: u64) -> Result<Handle> {
        let held = self.locate(ino)?.hold()?;
        self.tree.as_known(&held, ino)?;
        Ok(held)
    }
}
