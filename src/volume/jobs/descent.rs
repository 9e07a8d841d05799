//! A walk down the tree that verifies that each directory is in its place, and that misses nothing
//! that is renamed under it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLockWriteGuard;
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::walk::{Visit, Walk};
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::Copies;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::{Authority, LiveAuthority};
use crate::volume::namespace::inode::{Link, ROOT, Whereabouts};
use crate::volume::namespace::renames::{Moved, RenameWatch};

/// Directories still to be visited, parents before children; then what got another name meanwhile.
pub(in crate::volume) struct Descent<'a> {
    volume: &'a Volume,
    walk: Walk,
    /// Where it begins; taken by the first step.
    top: Option<Arc<Dir>>,
    /// The directories that are above the next one, outermost first.
    above: Vec<Level>,
    below_unusable: bool,
    /// None where only a part of the tree is walked.
    watch: Option<RenameWatch>,
    /// What was renamed and is still to be visited.
    strays: Vec<Moved>,
    rounds: u32,
    /// Held in the last round, in which nothing is renamed.
    still: Option<RwLockWriteGuard<'a, ()>>,
    missed: Vec<Missed>,
}

/// Something that a walk has not seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::volume) struct Missed {
    /// Its backing path, as far as it is known.
    pub(in crate::volume) path: PathBuf,
    pub(in crate::volume) why: Unseen,
}

/// Why something was not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::volume) enum Unseen {
    Mounted,
    Vanished,
    Renamed,
    /// A crash, or somebody, left it with the name of something unfinished.
    Nameless,
}

/// A directory on the way down.
struct Level {
    depth: usize,
    ino: u64,
    /// It may be changed before those below it are opened.
    says: Arc<LiveAuthority>,
}

/// What was renamed, where it is now.
enum Stray {
    Directory(Arc<Dir>, Vec<BackingName>),
    File(Visit, Arc<Dir>),
}

impl<'a> Descent<'a> {
    /// A descent through the whole volume.
    pub(in crate::volume) fn new(volume: &'a Volume) -> Result<Self> {
        // From before the first name is read.
        let watch = volume.tree.renames.watch();
        let whole = Self::below(volume, volume.dir(ROOT)?)?;
        Ok(Self { watch: Some(watch), ..whole })
    }

    /// One that begins with the directory `top`. What is renamed under it may be missed.
    pub(in crate::volume) fn below(volume: &'a Volume, top: Arc<Dir>) -> Result<Self> {
        let walk = Walk::at(&*top, Vec::new())?;
        Ok(Self {
            volume,
            walk,
            top: Some(top),
            above: Vec::new(),
            below_unusable: false,
            watch: None,
            strays: Vec::new(),
            rounds: 0,
            still: None,
            missed: Vec::new(),
        })
    }

    /// The next directory, with what is in it, or with one file of it that was renamed; `None` at the
    /// end. One that is removed meanwhile is left out, and one that is renamed comes last, perhaps a
    /// second time. In the last round nothing can be renamed until this is dropped.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the KMS; a directory that cannot be used is none.
    pub(in crate::volume) fn step(&mut self) -> Result<Option<(Visit, Arc<Dir>)>> {
        loop {
            if let Some(found) = self.step_down()? {
                return Ok(Some(found));
            }
            match self.next_stray() {
                Some(Stray::File(visit, dir)) => return Ok(Some((visit, dir))),
                Some(Stray::Directory(dir, names)) => {
                    self.leave_walk();
                    self.walk = Walk::at(&*dir, names)?;
                    self.top = Some(dir);
                }
                None => return Ok(None),
            }
        }
    }

    /// At the end, returns what was not seen: nothing may then be concluded from what was not found.
    pub(in crate::volume) fn missed(mut self) -> Vec<Missed> {
        self.leave_walk();
        if self.watch.as_ref().is_some_and(RenameWatch::has_overflowed) {
            self.miss(PathBuf::new(), Unseen::Renamed);
        }
        self.missed
    }

    fn step_down(&mut self) -> Result<Option<(Visit, Arc<Dir>)>> {
        while let Some(visit) = self.walk.step()? {
            while self.above.last().is_some_and(|level| level.depth >= visit.depth) {
                self.above.pop();
            }
            let dir = match self.top.take() {
                Some(top) => top,
                None => match self.open(&visit)? {
                    Some(dir) => Arc::new(dir),
                    None => continue,
                },
            };
            let nothing = |level: &Level| matches!(level.says.now(), Authority::None);
            self.below_unusable = self.above.last().is_some_and(nothing);
            let (depth, ino, says) = (visit.depth, dir.ino(), Arc::clone(dir.says()));
            self.above.push(Level { depth, ino, says });
            return Ok(Some((visit, dir)));
        }
        Ok(None)
    }

    /// True if the directory above the last one cannot be used either. A report names only that one:
    /// there may be a chain of any length below it, and each has a path of its own.
    pub(in crate::volume) fn is_below_unusable(&self) -> bool {
        self.below_unusable
    }

    /// Locks: that of the directory above, for a moment.
    fn open(&mut self, visit: &Visit) -> Result<Option<Dir>> {
        let (Some(name), Some(parent)) = (visit.name(), &visit.parent) else { return Ok(None) };
        // What is below a directory that was left out is left out too.
        let Some(above) = self.above.last().filter(|above| above.depth + 1 == visit.depth) else {
            return Ok(None);
        };
        let begun = self.volume.tree.dirs.era();
        let still = self.volume.tree.locks.reading(above.ino);
        let stat = fstat(&visit.fd)?;
        let here = beneath::stat(parent, name);
        if !here.is_ok_and(|here| (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)) {
            drop(still);
            self.vanish(visit.path());
            return Ok(None);
        }
        let copies = Copies::read(&visit.fd);
        drop(still);
        let ino = self.volume.tree.inodes.shown(stat.st_ino);
        let fd = fcntl_dupfd_cloexec(&visit.fd, 0)?;
        let expected = above.says.now().expects(name.bytes());
        let dir = Dir::open(ino, fd, copies, expected.clone(), self.volume.opener())?;
        if dir.misplaced().is_none() || !self.volume.tree.dirs.has_changed_since(begun) {
            dir.sound_alarm();
            return Ok(Some(dir));
        }
        // Its descriptor may have been replaced since it was read.
        let fd = fcntl_dupfd_cloexec(&visit.fd, 0)?;
        let copies = Copies::read(&fd);
        let dir = Dir::open(ino, fd, copies, expected, self.volume.opener())?;
        dir.sound_alarm();
        Ok(Some(dir))
    }

    fn leave_walk(&mut self) {
        self.above.clear();
        for path in self.walk.take_mounted() {
            self.miss(path, Unseen::Mounted);
        }
        for path in self.walk.take_nameless() {
            self.miss(path, Unseen::Nameless);
        }
        let on_the_mount = self.watch.as_ref().is_some_and(RenameWatch::has_seen_changes);
        for path in self.walk.take_lost() {
            self.miss(path, if on_the_mount { Unseen::Renamed } else { Unseen::Vanished });
        }
        if self.walk.has_vanished() {
            self.vanish(PathBuf::new());
        }
    }

    /// What was renamed or removed through the mount is noted; anything else vanished behind its back.
    fn vanish(&mut self, path: PathBuf) {
        if self.watch.as_ref().is_some_and(|watch| !watch.has_seen_changes()) {
            self.miss(path, Unseen::Vanished);
        }
    }

    fn miss(&mut self, path: PathBuf, why: Unseen) {
        let missed = Missed { path, why };
        if !self.missed.contains(&missed) {
            self.missed.push(missed);
        }
    }

    fn next_stray(&mut self) -> Option<Stray> {
        while let Some(moved) = self.next_moved() {
            match self.find(&moved) {
                Ok(Some(stray)) => return Some(stray),
                // Its last name is gone as well.
                Ok(None) => {}
                Err(_) if self.still.is_some() => self.miss(PathBuf::new(), Unseen::Renamed),
                // It is being renamed again.
                Err(_) => self.watch.iter().for_each(|watch| watch.put_back(moved.clone())),
            }
        }
        None
    }

    /// Rounds, until nothing was renamed during one. Whoever renames all the time waits for the last.
    fn next_moved(&mut self) -> Option<Moved> {
        let watch = self.watch.as_ref()?;
        if self.strays.is_empty() && self.still.is_none() {
            self.strays = watch.take();
            self.rounds += u32::from(!self.strays.is_empty());
            if self.rounds == ROUNDS {
                self.still = Some(self.volume.tree.renames.hold());
                self.strays.extend(watch.take());
            }
        }
        self.strays.pop()
    }

    /// What was renamed, found by one of its links; `None` if it is neither a file nor a directory, or
    /// is in no directory any more.
    ///
    /// # Errors
    /// `Stale` if none of its links leads to it now; those of the backing filesystem.
    fn find(&self, (ino, links): &Moved) -> Result<Option<Stray>> {
        let known = match self.volume.tree.inodes.whereabouts(*ino) {
            Some(Whereabouts::Pinned(_)) => return Ok(None),
            Some(Whereabouts::Entry(link)) => Some(link),
            None => None,
        };
        let mut hidden = None;
        for link in known.iter().chain(links) {
            match self.find_at(*ino, link) {
                Ok(StrayLookup::Here(stray)) => return Ok(Some(stray)),
                Ok(StrayLookup::Neither) => return Ok(None),
                Ok(StrayLookup::Gone) => {}
                Err(error) => hidden = Some(error),
            }
        }
        match hidden {
            Some(error) => Err(error),
            // Whatever moved it has ended, and was noted: it was removed, or replaced.
            None if self.still.is_some() => Ok(None),
            None => Err(VolumeError::Stale),
        }
    }

    /// Locks: that of the directory of the link, for a moment.
    fn find_at(&self, ino: u64, link: &Link) -> Result<StrayLookup> {
        let volume = self.volume;
        let parent = volume.dir(link.parent)?;
        let still = volume.tree.locks.reading(link.parent);
        let held = match beneath::hold(&*parent, &link.name) {
            Err(Errno::NOENT) => return Ok(StrayLookup::Gone),
            other => other?,
        };
        if volume.tree.same_number(held.found(), ino).is_err() {
            return Ok(StrayLookup::Gone);
        }
        match FileType::from_raw_mode(held.found().st_mode) {
            FileType::Directory => {
                let fd = held.open_dir()?;
                let copies = Copies::read(&fd);
                drop(still);
                let expected = parent.authority().expects(link.name.bytes());
                let dir = Dir::open(ino, fd, copies, expected, volume.opener())?;
                dir.sound_alarm();
                let mut names = names_of(volume, link.parent);
                names.push(link.name.clone());
                Ok(StrayLookup::Here(Stray::Directory(Arc::new(dir), names)))
            }
            FileType::RegularFile => {
                let fd = fcntl_dupfd_cloexec(&*parent, 0)?;
                let visit = Visit::of_file(fd, names_of(volume, link.parent), link.name.clone());
                Ok(StrayLookup::Here(Stray::File(visit, parent)))
            }
            _ => Ok(StrayLookup::Neither),
        }
    }
}

/// What a link of something that was renamed leads to.
enum StrayLookup {
    Here(Stray),
    /// The inode, but it is neither a file nor a directory.
    Neither,
    /// Something else, or nothing.
    Gone,
}

/// The names that lead to a directory that the kernel knows, as far as they are known.
fn names_of(volume: &Volume, mut ino: u64) -> Vec<BackingName> {
    let mut names = Vec::new();
    while let Some(Whereabouts::Entry(link)) = volume.tree.inodes.whereabouts(ino) {
        names.push(link.name);
        ino = link.parent;
        if names.len() == DEEPEST {
            break;
        }
    }
    names.reverse();
    names
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mounted => "something is mounted on it: what is below it was not looked at",
            Self::Vanished => "entries were taken away or renamed from outside meanwhile",
            Self::Nameless => {
                "a crash left this directory without a name, and something is in it: 'kmsfs fsck \
                 --repair' makes it visible"
            }
            Self::Renamed => "entries were renamed meanwhile that could not be found again",
        })
    }
}

/// The round for which nothing may be renamed.
const ROUNDS: u32 = 8;
/// Names of a path that is shown.
const DEEPEST: usize = 4096;
