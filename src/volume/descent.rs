//! A walk down the tree that verifies that each directory is in its place.

use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::fcntl_dupfd_cloexec;

use super::Volume;
use super::beneath;
use super::dir::{Copies, Dir};
use super::dir_rules::Authority;
use super::error::Result;
use super::inode::ROOT;
use super::walk::{Visit, Walk};

/// Directories still to be visited, parents before children.
pub(super) struct Descent<'a> {
    volume: &'a Volume,
    walk: Walk,
    /// Where it begins; taken by the first step.
    top: Option<Arc<Dir>>,
    /// The directories that are above the next one, outermost first.
    above: Vec<Level>,
    below_unusable: bool,
}

/// A directory on the way down.
struct Level {
    depth: usize,
    ino: u64,
    authority: Authority,
}

impl<'a> Descent<'a> {
    /// A descent through the whole volume.
    pub(super) fn new(volume: &'a Volume) -> Result<Self> {
        Self::below(volume, volume.dir(ROOT)?)
    }

    /// One that begins with the directory `top`.
    pub(super) fn below(volume: &'a Volume, top: Arc<Dir>) -> Result<Self> {
        let walk = Walk::new(&fcntl_dupfd_cloexec(&*top, 0)?)?;
        Ok(Self { volume, walk, top: Some(top), above: Vec::new(), below_unusable: false })
    }

    /// The next directory, with what is in it; `None` at the end. One that is moved or removed
    /// meanwhile is left out.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the KMS; a directory that cannot be used is none.
    pub(super) fn step(&mut self) -> Result<Option<(Visit, Arc<Dir>)>> {
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
            let nothing = |level: &Level| matches!(level.authority, Authority::None);
            self.below_unusable = self.above.last().is_some_and(nothing);
            let (depth, ino, authority) = (visit.depth, dir.ino(), dir.authority());
            self.above.push(Level { depth, ino, authority });
            return Ok(Some((visit, dir)));
        }
        Ok(None)
    }

    /// True if the directory above the last one cannot be used either. A report tells of that one
    /// alone: there may be a chain of any length below it, and each has a path of its own.
    pub(super) fn is_below_unusable(&self) -> bool {
        self.below_unusable
    }

    /// Locks: that of the directory above, for a moment.
    fn open(&self, visit: &Visit) -> Result<Option<Dir>> {
        let (Some(name), Some(parent)) = (visit.name(), &visit.parent) else { return Ok(None) };
        // What is below a directory that was left out is left out too.
        let Some(above) = self.above.last().filter(|above| above.depth + 1 == visit.depth) else {
            return Ok(None);
        };
        let still = self.volume.tree.locks.reading(above.ino);
        let stat = fstat(&visit.fd)?;
        let here = beneath::stat(parent, name);
        if !here.is_ok_and(|here| (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(None);
        }
        let copies = Copies::read(&visit.fd);
        drop(still);
        let ino = self.volume.tree.inodes.shown(stat.st_ino);
        let fd = fcntl_dupfd_cloexec(&visit.fd, 0)?;
        let expected = above.authority.expects(name.bytes());
        Dir::open(ino, fd, copies, expected, self.volume.opener()).map(Some)
    }
}
