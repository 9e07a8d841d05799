//! Names and sizes in memory; every byte is zero.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use parking_lot::RwLock;

use super::{MAX_WRITE, Reply, TTL, attributes, empty, entry, missing, negotiate, place, plain};

/// A filesystem that forgets contents.
pub(crate) struct Null {
    tree: RwLock<Tree>,
    listings: RwLock<HashMap<u64, Listing>>,
    handles: AtomicU64,
}

/// What exists, by number.
struct Tree {
    nodes: HashMap<u64, Node>,
    last: u64,
}

struct Node {
    kind: FileType,
    perm: u16,
    size: u64,
    names: HashMap<OsString, u64>,
    target: OsString,
}

/// Names with their numbers, as they were when a directory was opened.
type Listing = Arc<Vec<(OsString, u64)>>;

impl Null {
    pub(crate) fn new() -> Self {
        let root = Node::new(FileType::Directory, 0o755);
        let tree = Tree { nodes: HashMap::from([(ROOT, root)]), last: ROOT };
        Self { tree: RwLock::new(tree), listings: RwLock::default(), handles: AtomicU64::new(0) }
    }

    fn listing(&self, handle: FileHandle) -> Reply<Listing> {
        self.listings.read().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }
}

impl Node {
    fn new(kind: FileType, perm: u16) -> Self {
        Self { kind, perm, size: 0, names: HashMap::new(), target: OsString::new() }
    }
}

impl Tree {
    fn attr(&self, ino: u64) -> Reply<FileAttr> {
        let node = self.nodes.get(&ino).ok_or(Errno::ENOENT)?;
        Ok(plain(ino, node.kind, node.perm, node.size))
    }

    fn find(&self, parent: INodeNo, name: &OsStr) -> Reply<u64> {
        let parent = self.nodes.get(&parent.0).ok_or(Errno::ENOENT)?;
        parent.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Reply<FileAttr> {
        if self.find(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.last += 1;
        let ino = self.last;
        self.nodes.insert(ino, node);
        self.names(parent)?.insert(name.to_owned(), ino);
        self.attr(ino)
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Reply<()> {
        let ino = self.find(parent, name)?;
        if self.nodes.get(&ino).is_some_and(|node| !node.names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.nodes.remove(&ino);
        self.names(parent)?.remove(name);
        Ok(())
    }

    fn names(&mut self, parent: INodeNo) -> Reply<&mut HashMap<OsString, u64>> {
        Ok(&mut self.nodes.get_mut(&parent.0).ok_or(Errno::ENOENT)?.names)
    }
}

impl Filesystem for Null {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.tree.read();
        let found = tree.find(parent, name).and_then(|ino| tree.attr(ino));
        reply.entry(&TTL, &found.unwrap_or_else(|_| missing()), Generation(0));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.tree.read().attr(ino.0));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree.write();
        if let Some(node) = tree.nodes.get_mut(&ino.0) {
            node.size = size.unwrap_or(node.size);
            node.perm = mode.map_or(node.perm, permissions);
        }
        attributes(reply, tree.attr(ino.0));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.read().nodes.get(&ino.0) {
            Some(node) => reply.data(node.target.as_encoded_bytes()),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let node = Node::new(FileType::Directory, permissions(mode));
        entry(reply, self.tree.write().add(parent, name, node));
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let mut node = Node::new(FileType::Symlink, 0o777);
        node.target = target.as_os_str().to_owned();
        entry(reply, self.tree.write().add(parent, link_name, node));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.write().remove(parent, name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.write().remove(parent, name));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut tree = self.tree.write();
        let moved = tree.find(parent, name).and_then(|ino| {
            let _ = tree.remove(newparent, newname);
            tree.names(parent)?.remove(name);
            tree.names(newparent)?.insert(newname.to_owned(), ino);
            Ok(())
        });
        empty(reply, moved);
    }

    fn open(&self, _req: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let node = Node::new(FileType::RegularFile, permissions(mode));
        match self.tree.write().add(parent, name, node) {
            Ok(attr) => {
                let keep = FopenFlags::FOPEN_KEEP_CACHE;
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), keep);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let there = self.tree.read().nodes.get(&ino.0).map_or(0, |node| node.size);
        let count = there.saturating_sub(offset).min(size.into());
        let count = usize::try_from(count).unwrap_or(ZEROS.len());
        reply.data(ZEROS.get(..count).unwrap_or(&ZEROS));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if let Some(node) = self.tree.write().nodes.get_mut(&ino.0) {
            node.size = node.size.max(offset + u64::from(length));
        }
        reply.written(length);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let dots = [".", ".."].map(|name| (OsString::from(name), ino.0));
        let mut listing: Vec<(OsString, u64)> = dots.into();
        if let Some(node) = self.tree.read().nodes.get(&ino.0) {
            listing.extend(node.names.iter().map(|(name, ino)| (name.clone(), *ino)));
        }
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.listings.write().insert(handle, Arc::new(listing));
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Ok(listing) = self.listing(fh) else { return reply.error(Errno::EBADF) };
        let tree = self.tree.read();
        for (next, (name, ino)) in (1..).zip(listing.iter()).skip(place(offset)) {
            let kind = tree.nodes.get(ino).map_or(FileType::RegularFile, |node| node.kind);
            if reply.add(INodeNo(*ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Ok(listing) = self.listing(fh) else { return reply.error(Errno::EBADF) };
        let tree = self.tree.read();
        for (next, (name, ino)) in (1..).zip(listing.iter()).skip(place(offset)) {
            let attr = tree.attr(*ino).unwrap_or_else(|_| missing());
            if reply.add(attr.ino, next, name, &TTL, &attr, Generation(0)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.write().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 30, 1 << 30, 1 << 30, 1 << 30, 1 << 30, 4096, 255, 4096);
    }
}

fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0o600)
}

const ROOT: u64 = 1;
/// What is read: as much as the largest request asks for.
static ZEROS: [u8; MAX_WRITE as usize] = [0; MAX_WRITE as usize];
