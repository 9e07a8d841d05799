//! The calls of the kernel, passed on to a [`Tree`](super::tree::Tree).

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::disk::{Call, Shared};
use super::tree::{Node, Tree};

pub(super) struct Served(pub(super) Arc<Shared>);

type Result<T> = std::result::Result<T, Errno>;

/// Nothing is cached: each use of a name or an attribute is a call.
const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);

impl Served {
    fn make(&self, dir: INodeNo, name: &OsStr, call: Call, node: Node) -> Result<FileAttr> {
        self.0.call(call, |tree| {
            let ino = tree.make(dir.0, name, node)?;
            Ok(attr(ino, tree.node(ino)?))
        })
    }

    fn empty(&self, reply: ReplyEmpty, call: Call, run: impl FnOnce(&mut Tree) -> Result<()>) {
        match self.0.call(call, run) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(said(error)),
        }
    }

    fn open_anything(&self, reply: ReplyOpen) {
        match self.0.call(Call::Open, |_| Ok(())) {
            // Past the page cache, so that a read is a call.
            Ok(()) => reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(said(error)),
        }
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.0.call(Call::Look, |tree| {
            let ino = tree.find(dir.0, name)?;
            Ok(attr(ino, tree.node(ino)?))
        });
        entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.0.call(Call::Look, |tree| Ok(attr(ino.0, tree.node(ino.0)?))));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.0.call(Call::Change, |tree| {
            let node = tree.node_mut(ino.0)?;
            if let Some(size) = size {
                node.bytes.resize(index(size), 0);
                node.changed();
            }
            node.mode = mode.map_or(node.mode, |mode| u16::try_from(mode & 0o7777).unwrap());
            (node.uid, node.gid) = (uid.unwrap_or(node.uid), gid.unwrap_or(node.gid));
            node.atime = atime.map_or(node.atime, moment);
            node.mtime = mtime.map_or(node.mtime, moment);
            node.ctime = SystemTime::now();
            Ok(attr(ino.0, node))
        });
        attributes(reply, changed);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.0.call(Call::Look, |tree| Ok(tree.node(ino.0)?.target.clone())) {
            Ok(target) => reply.data(target.as_os_str().as_encoded_bytes()),
            Err(error) => reply.error(said(error)),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFIFO => FileType::NamedPipe,
            libc::S_IFSOCK => FileType::Socket,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFBLK => FileType::BlockDevice,
            _ => FileType::RegularFile,
        };
        let node = Node { device, ..Node::new(kind, mode) };
        entry(reply, self.make(dir, name, Call::Grow, node));
    }

    fn mkdir(&self, _: &Request, dir: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(dir, name, Call::Grow, Node::new(FileType::Directory, mode)));
    }

    fn unlink(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, Call::Change, |tree| tree.remove(dir.0, name, FileType::RegularFile));
    }

    fn rmdir(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, Call::Change, |tree| tree.remove(dir.0, name, FileType::Directory));
    }

    fn symlink(&self, _: &Request, dir: INodeNo, name: &OsStr, to: &Path, reply: ReplyEntry) {
        entry(reply, self.make(dir, name, Call::Grow, Node::link_to(to)));
    }

    fn rename(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        new_dir: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let (from, to) = ((dir.0, name), (new_dir.0, new_name));
        self.empty(reply, Call::Grow, |tree| tree.rename(from, to, flags));
    }

    fn link(&self, _: &Request, ino: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.0.call(Call::Grow, |tree| {
            tree.link(ino.0, dir.0, name)?;
            Ok(attr(ino.0, tree.node(ino.0)?))
        });
        entry(reply, linked);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.open_anything(reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.open_anything(reply);
    }

    fn create(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(dir, name, Call::Create, Node::new(FileType::RegularFile, mode)) {
            Ok(attr) => {
                let direct = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&TTL, &attr, GENERATION, FileHandle(0), direct);
            }
            Err(error) => reply.error(said(error)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.0.part(Call::Read, |tree, half| {
            let bytes = tree.node(ino.0)?.read(index(offset), size as usize);
            Ok(bytes[..taken(bytes.len(), half)].to_vec())
        });
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(said(error)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let call = self.0.write_call(ino.0, index(offset), data.len());
        let written = self.0.part(call, |tree, half| {
            let data = &data[..taken(data.len(), half)];
            tree.write(ino.0, index(offset), data)?;
            Ok(u32::try_from(data.len()).unwrap())
        });
        match written {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(said(error)),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(reply, Call::Sync, |_| Ok(()));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.empty(reply, Call::Sync, |_| Ok(()));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.0.call(Call::Look, |tree| {
            let mut listed = vec![(ino.0, FileType::Directory, ".".into())];
            listed.push((ino.0, FileType::Directory, "..".into()));
            for (name, ino) in &tree.node(ino.0)?.entries {
                listed.push((*ino, tree.node(*ino)?.kind, name.clone()));
            }
            Ok(listed)
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(said(error)),
        };
        for (place, (ino, kind, name)) in listed.into_iter().enumerate().skip(index(offset)) {
            if reply.add(INodeNo(ino), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096);
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        self.empty(reply, Call::Grow, |tree| {
            let node = tree.node_mut(ino.0)?;
            match (flags, node.xattrs.contains_key(name)) {
                (libc::XATTR_CREATE, true) => return Err(Errno::EXIST),
                (libc::XATTR_REPLACE, false) => return Err(Errno::NODATA),
                _ => {}
            }
            node.xattrs.insert(name.to_owned(), value.to_vec());
            node.ctime = SystemTime::now();
            Ok(())
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.0.call(Call::Look, |tree| {
            tree.node(ino.0)?.xattrs.get(name).cloned().ok_or(Errno::NODATA)
        });
        sized(reply, value, size);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.0.call(Call::Look, |tree| {
            let names = tree.node(ino.0)?.xattrs.keys();
            Ok(names.flat_map(|name| [name.as_encoded_bytes(), &[0]].concat()).collect())
        });
        sized(reply, names, size);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, Call::Change, |tree| {
            let node = tree.node_mut(ino.0)?;
            node.ctime = SystemTime::now();
            node.xattrs.remove(name).map(drop).ok_or(Errno::NODATA)
        });
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let how = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        self.empty(reply, Call::Grow, |tree| {
            let node = tree.node_mut(ino.0)?;
            if how.contains(FallocateFlags::PUNCH_HOLE) {
                node.punch(index(offset), index(length));
            } else if how.is_empty() {
                node.reach(index(offset + length));
            }
            Ok(())
        });
    }

    fn lseek(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let found = self.0.call(Call::Look, |tree| {
            let from = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
            tree.node(ino.0)?.seek(from, whence == libc::SEEK_DATA)
        });
        match found {
            Ok(at) => reply.offset(i64::try_from(at).unwrap()),
            Err(error) => reply.error(said(error)),
        }
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
        Err(error) => reply.error(said(error)),
    }
}

fn attributes(reply: ReplyAttr, found: Result<FileAttr>) {
    match found {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(error) => reply.error(said(error)),
    }
}

/// An attribute for who asks for its size, or for its bytes.
fn sized(reply: ReplyXattr, found: Result<Vec<u8>>, room: u32) {
    match found {
        Ok(bytes) if room == 0 => reply.size(u32::try_from(bytes.len()).unwrap()),
        Ok(bytes) if bytes.len() > room as usize => reply.error(said(Errno::RANGE)),
        Ok(bytes) => reply.data(&bytes),
        Err(error) => reply.error(said(error)),
    }
}

fn attr(ino: u64, node: &Node) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: node.size(),
        blocks: node.bytes.len().div_ceil(512) as u64,
        atime: node.atime,
        mtime: node.mtime,
        ctime: node.ctime,
        crtime: node.ctime,
        kind: node.kind,
        perm: node.mode,
        nlink: node.links,
        uid: node.uid,
        gid: node.gid,
        rdev: node.device,
        blksize: 4096,
        flags: 0,
    }
}

/// Half of it, but at least a byte: none at all would be the end of the file.
fn taken(len: usize, half: bool) -> usize {
    if half { len.div_ceil(2) } else { len }
}

fn moment(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn said(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}
