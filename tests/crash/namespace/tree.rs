//! A filesystem in memory: inodes, names, attributes and bytes, and nothing that fails by itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fuser::FileType;
use rustix::fs::RenameFlags;
use rustix::io::Errno;

/// Everything on the disk. A clone is the same disk at another time.
#[derive(Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

/// An inode. Those without a name stay: somebody may have them open.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) kind: FileType,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) device: u32,
    pub(crate) atime: SystemTime,
    pub(crate) mtime: SystemTime,
    pub(crate) ctime: SystemTime,
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: BTreeMap<OsString, u64>,
    pub(crate) target: PathBuf,
    pub(crate) xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// The inode of the root.
pub(crate) const ROOT: u64 = 1;
const PAGE: usize = 4096;

type Result<T> = std::result::Result<T, Errno>;

impl Tree {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        let mut root = Node::new(FileType::Directory, 0o700);
        root.links = 2;
        Self { nodes: BTreeMap::from([(ROOT, root)]), last: ROOT }
    }

    pub(crate) fn node(&self, ino: u64) -> Result<&Node> {
        self.nodes.get(&ino).ok_or(Errno::STALE)
    }

    pub(crate) fn node_mut(&mut self, ino: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&ino).ok_or(Errno::STALE)
    }

    /// The inode under a name.
    pub(crate) fn find(&self, dir: u64, name: &OsStr) -> Result<u64> {
        self.node(dir)?.entries.get(name).copied().ok_or(Errno::NOENT)
    }

    /// A new inode under a new name.
    pub(crate) fn make(&mut self, dir: u64, name: &OsStr, node: Node) -> Result<u64> {
        self.free(dir, name)?;
        self.last += 1;
        let is_dir = node.kind == FileType::Directory;
        self.nodes.insert(self.last, Node { links: u32::from(is_dir), ..node });
        self.enter(dir, name, self.last)?;
        Ok(self.last)
    }

    pub(crate) fn link(&mut self, ino: u64, dir: u64, name: &OsStr) -> Result<()> {
        self.free(dir, name)?;
        self.enter(dir, name, ino)
    }

    /// Removes a name: of a directory for [`FileType::Directory`], of anything else otherwise.
    pub(crate) fn remove(&mut self, dir: u64, name: &OsStr, kind: FileType) -> Result<()> {
        let node = self.node(self.find(dir, name)?)?;
        match (node.kind == FileType::Directory, kind == FileType::Directory) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !node.entries.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.leave(dir, name)
    }

    pub(crate) fn rename(
        &mut self,
        (dir, name): (u64, &OsStr),
        (new_dir, new_name): (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        let moved = self.find(dir, name)?;
        let other = self.find(new_dir, new_name);
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = other?;
            self.leave(dir, name)?;
            self.leave(new_dir, new_name)?;
            self.enter(dir, name, other)?;
            return self.enter(new_dir, new_name, moved);
        }
        if let Ok(other) = other {
            if flags.contains(RenameFlags::NOREPLACE) {
                return Err(Errno::EXIST);
            }
            if other == moved {
                return Ok(());
            }
            let kind = self.node(moved)?.kind;
            self.remove(new_dir, new_name, kind)?;
        }
        self.leave(dir, name)?;
        self.enter(new_dir, new_name, moved)
    }

    pub(crate) fn write(&mut self, ino: u64, offset: usize, data: &[u8]) -> Result<()> {
        let node = self.node_mut(ino)?;
        node.reach(offset + data.len());
        node.bytes[offset..offset + data.len()].copy_from_slice(data);
        node.changed();
        Ok(())
    }

    fn free(&self, dir: u64, name: &OsStr) -> Result<()> {
        match self.find(dir, name) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn enter(&mut self, dir: u64, name: &OsStr, ino: u64) -> Result<()> {
        let node = self.node_mut(ino)?;
        node.links += 1;
        node.ctime = SystemTime::now();
        self.named(dir, |entries| entries.insert(name.to_owned(), ino))
    }

    fn leave(&mut self, dir: u64, name: &OsStr) -> Result<()> {
        let node = self.node_mut(self.find(dir, name)?)?;
        node.links -= 1;
        node.ctime = SystemTime::now();
        self.named(dir, |entries| entries.remove(name))
    }

    fn named<T>(
        &mut self,
        dir: u64,
        change: impl FnOnce(&mut BTreeMap<OsString, u64>) -> T,
    ) -> Result<()> {
        let dir = self.node_mut(dir)?;
        change(&mut dir.entries);
        dir.changed();
        Ok(())
    }
}

impl Node {
    pub(crate) fn new(kind: FileType, mode: u32) -> Self {
        let now = SystemTime::now();
        Self {
            kind,
            mode: u16::try_from(mode & 0o7777).unwrap(),
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            links: 0,
            device: 0,
            atime: now,
            mtime: now,
            ctime: now,
            bytes: Vec::new(),
            entries: BTreeMap::new(),
            target: PathBuf::new(),
            xattrs: BTreeMap::new(),
        }
    }

    pub(crate) fn link_to(target: &Path) -> Self {
        Self { target: target.to_owned(), ..Self::new(FileType::Symlink, 0o777) }
    }

    /// The length that stat(2) shows.
    pub(crate) fn size(&self) -> u64 {
        (self.bytes.len() + self.target.as_os_str().len()) as u64
    }

    /// Its contents are others now.
    pub(crate) fn changed(&mut self) {
        self.mtime = SystemTime::now();
        self.ctime = self.mtime;
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> &[u8] {
        let end = self.bytes.len().min(offset.saturating_add(len));
        self.bytes.get(offset..end).unwrap_or_default()
    }

    /// True if no page of the range is a hole.
    pub(crate) fn has(&self, offset: usize, len: usize) -> bool {
        let (first, end) = (offset / PAGE, (offset + len).div_ceil(PAGE));
        let mut pages = self.bytes.chunks(PAGE).skip(first).take(end - first);
        self.bytes.len() >= offset + len && pages.all(|page| page.iter().any(|byte| *byte != 0))
    }

    pub(crate) fn reach(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    pub(crate) fn punch(&mut self, offset: usize, len: usize) {
        let end = self.bytes.len().min(offset + len);
        self.bytes.get_mut(offset..end).unwrap_or_default().fill(0);
        self.changed();
    }

    /// The first offset from here on that is data, or a hole. Pages of zeros are holes, as is the
    /// end.
    pub(crate) fn seek(&self, offset: usize, data: bool) -> Result<usize> {
        if offset >= self.bytes.len() {
            return Err(Errno::NXIO);
        }
        let pages = self.bytes.chunks(PAGE).enumerate().skip(offset / PAGE);
        let found = pages
            .map(|(number, page)| (number * PAGE, page.iter().any(|byte| *byte != 0)))
            .find(|(_, is_data)| *is_data == data);
        match found {
            Some((at, _)) => Ok(at.max(offset)),
            None if data => Err(Errno::NXIO),
            None => Ok(self.bytes.len()),
        }
    }
}
