//! Every request as one system call on a directory.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use parking_lot::RwLock;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::fs::{UTIME_NOW, UTIME_OMIT};

use super::{Reply, TTL, attributes, empty, entry, missing, negotiate, place, plain};

/// A directory, served as it is. Every name that the kernel knows has a number: links of one file have
/// different ones.
pub(crate) struct Passthrough {
    root: OwnedFd,
    names: RwLock<Names>,
    files: RwLock<HashMap<u64, Arc<File>>>,
    listings: RwLock<HashMap<u64, Listing>>,
    handles: AtomicU64,
}

/// What the kernel knows, and where it is.
struct Names {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<(u64, OsString), u64>,
    last: u64,
}

struct Node {
    parent: u64,
    name: OsString,
    lookups: u64,
}

/// The entries of a directory, as they were when it was opened.
type Listing = Arc<Vec<rustix::fs::DirEntry>>;

impl Names {
    /// The path of a number, from the root.
    fn path(&self, ino: INodeNo) -> Reply<PathBuf> {
        let mut parts = Vec::new();
        let mut at = ino.0;
        while at != ROOT {
            let node = self.nodes.get(&at).ok_or(Errno::ESTALE)?;
            parts.push(&node.name);
            at = node.parent;
        }
        let mut path = PathBuf::from(".");
        path.extend(parts.iter().rev());
        Ok(path)
    }

    /// The number of a name, of which the kernel is told once more.
    fn tell(&mut self, parent: INodeNo, name: &OsStr) -> u64 {
        let place = (parent.0, name.to_owned());
        let number = *self.numbers.entry(place).or_insert_with(|| {
            self.last += 1;
            let node = Node { parent: parent.0, name: name.to_owned(), lookups: 0 };
            self.nodes.insert(self.last, node);
            self.last
        });
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups += 1;
        }
        number
    }

    /// A name is gone: what gets it next is something else.
    fn lose(&mut self, parent: INodeNo, name: &OsStr) -> Option<u64> {
        self.numbers.remove(&(parent.0, name.to_owned()))
    }

    fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0 {
            let place = (node.parent, std::mem::take(&mut node.name));
            self.nodes.remove(&ino);
            if self.numbers.get(&place) == Some(&ino) {
                self.numbers.remove(&place);
            }
        }
    }
}

impl Passthrough {
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        rustix::process::umask(Mode::empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let names = Names { nodes: HashMap::new(), numbers: HashMap::new(), last: ROOT };
        Ok(Self {
            root: rustix::fs::open(directory, flags, Mode::empty())?,
            names: RwLock::new(names),
            files: RwLock::default(),
            listings: RwLock::default(),
            handles: AtomicU64::new(0),
        })
    }

    fn path(&self, ino: INodeNo) -> Reply<PathBuf> {
        self.names.read().path(ino)
    }

    fn below(&self, parent: INodeNo, name: &OsStr) -> Reply<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// Attributes, of an open file if there is one: it may have no name any more.
    fn attr(&self, ino: INodeNo, open: Option<FileHandle>) -> Reply<FileAttr> {
        let stat = match open.and_then(|handle| self.file(handle).ok()) {
            Some(file) => rustix::fs::fstat(&*file),
            None => rustix::fs::statat(&self.root, self.path(ino)?, AtFlags::SYMLINK_NOFOLLOW),
        };
        Ok(FileAttr { ino, ..file_attr(&stat.map_err(errno)?) })
    }

    /// Finds a name and counts that the kernel was told of it.
    fn look(&self, parent: INodeNo, name: &OsStr) -> Reply<FileAttr> {
        let path = self.below(parent, name)?;
        let stat = rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW);
        let attr = file_attr(&stat.map_err(errno)?);
        Ok(FileAttr { ino: INodeNo(self.names.write().tell(parent, name)), ..attr })
    }

    fn file(&self, handle: FileHandle) -> Reply<Arc<File>> {
        self.files.read().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn add(&self, file: impl Into<File>) -> FileHandle {
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.files.write().insert(handle, Arc::new(file.into()));
        FileHandle(handle)
    }

    fn reopen(&self, ino: INodeNo, flags: OFlags) -> Reply<OwnedFd> {
        rustix::fs::openat(&self.root, self.path(ino)?, flags, Mode::empty()).map_err(errno)
    }

    fn change(&self, ino: INodeNo, open: Option<FileHandle>, change: &Change) -> Reply<FileAttr> {
        let path = self.path(ino)?;
        let follow = AtFlags::SYMLINK_NOFOLLOW;
        if let Some(mode) = change.mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::chmodat(&self.root, &path, mode, AtFlags::empty()).map_err(errno)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let uid = change.uid.map(rustix::fs::Uid::from_raw);
            let gid = change.gid.map(rustix::fs::Gid::from_raw);
            rustix::fs::chownat(&self.root, &path, uid, gid, follow).map_err(errno)?;
        }
        if let Some(size) = change.size {
            match open.and_then(|handle| self.file(handle).ok()) {
                Some(file) => file.set_len(size)?,
                None => File::from(self.reopen(ino, OFlags::WRONLY)?).set_len(size)?,
            }
        }
        if change.atime.is_some() || change.mtime.is_some() {
            let [last_access, last_modification] = [change.atime, change.mtime].map(timespec);
            let times = Timestamps { last_access, last_modification };
            rustix::fs::utimensat(&self.root, &path, &times, follow).map_err(errno)?;
        }
        self.attr(ino, open)
    }

    fn listing(&self, handle: FileHandle) -> Reply<Listing> {
        self.listings.read().get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn list(&self, ino: INodeNo) -> Reply<FileHandle> {
        let folder = self.reopen(ino, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = Dir::new(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let entries = entries.map_err(errno)?;
        let handle = self.handles.fetch_add(1, Ordering::Relaxed);
        self.listings.write().insert(handle, Arc::new(entries));
        Ok(FileHandle(handle))
    }

    /// Answers with what was just made under a name.
    fn made(&self, reply: ReplyEntry, parent: INodeNo, name: &OsStr, done: Reply<()>) {
        entry(reply, done.and_then(|()| self.look(parent, name)));
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> Reply<()> {
        rustix::fs::unlinkat(&self.root, self.below(parent, name)?, flags).map_err(errno)?;
        self.names.write().lose(parent, name);
        Ok(())
    }

    fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: u32) -> Reply<()> {
        let paths = [self.below(from.0, from.1)?, self.below(to.0, to.1)?];
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags);
        let [old, new] = &paths;
        rustix::fs::renameat_with(&self.root, old, &self.root, new, flags).map_err(errno)?;
        let mut names = self.names.write();
        names.lose(to.0, to.1);
        if let Some(number) = names.lose(from.0, from.1) {
            names.numbers.insert((to.0.0, to.1.to_owned()), number);
            if let Some(node) = names.nodes.get_mut(&number) {
                (node.parent, node.name) = (to.0.0, to.1.to_owned());
            }
        }
        Ok(())
    }
}

/// What is to be changed of an inode.
struct Change {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

impl Filesystem for Passthrough {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(config);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look(parent, name) {
            Err(error) if i32::from(error) == libc::ENOENT => entry(reply, Ok(missing())),
            found => entry(reply, found),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.names.write().forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.attr(ino, fh));
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(reply, self.change(ino, fh, &Change { mode, uid, gid, size, atime, mtime }));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let read = |path| rustix::fs::readlinkat(&self.root, path, Vec::new()).map_err(errno);
        let target = self.path(ino).and_then(read);
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(error),
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
        let mode = Mode::from_raw_mode(mode);
        let make = |path| rustix::fs::mkdirat(&self.root, path, mode).map_err(errno);
        let done = self.below(parent, name).and_then(make);
        self.made(reply, parent, name, done);
    }

    fn symlink(
        &self,
        _req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let make = |path| rustix::fs::symlinkat(target, &self.root, path).map_err(errno);
        let done = self.below(parent, link_name).and_then(make);
        self.made(reply, parent, link_name, done);
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let done = self.path(ino).and_then(|path| {
            let (root, new) = (&self.root, self.below(newparent, newname)?);
            rustix::fs::linkat(root, path, root, new, AtFlags::empty()).map_err(errno)
        });
        self.made(reply, newparent, newname, done);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name, AtFlags::empty()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name, AtFlags::REMOVEDIR));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.rename((parent, name), (newparent, newname), flags.bits()));
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.reopen(ino, buffered(flags.0)) {
            Ok(file) => reply.opened(self.add(file), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.below(parent, name).and_then(|path| {
            let flags = buffered(flags) | OFlags::CREATE;
            let file = rustix::fs::openat(&self.root, path, flags, Mode::from_raw_mode(mode));
            Ok((file.map_err(errno)?, self.look(parent, name)?))
        });
        match made {
            Ok((file, attr)) => {
                let (file, keep) = (self.add(file), FopenFlags::FOPEN_KEEP_CACHE);
                reply.created(&TTL, &attr, Generation(0), file, keep);
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.resize(usize::try_from(size).unwrap_or(0).max(buffer.len()), 0);
            let wanted = buffer.get_mut(..usize::try_from(size).unwrap_or(0)).unwrap_or_default();
            match self.file(fh).and_then(|file| Ok(file.read_at(wanted, offset)?)) {
                Ok(count) => reply.data(wanted.get(..count).unwrap_or_default()),
                Err(error) => reply.error(error),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(fh).and_then(|file| Ok(file.write_all_at(data, offset)?)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
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

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.write().remove(&fh.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        empty(
            reply,
            self.file(fh).and_then(|file| {
                if datasync {
                    file.sync_data()?
                } else {
                    file.sync_all()?
                }
                Ok(())
            }),
        );
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let folder = self.reopen(ino, OFlags::RDONLY | OFlags::DIRECTORY);
        empty(reply, folder.and_then(|folder| rustix::fs::fsync(folder).map_err(errno)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.list(ino) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
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
        for (next, entry) in (1..).zip(listing.iter()).skip(place(offset)) {
            let kind = file_type(entry.file_type());
            if reply.add(INodeNo(entry.ino()), next, kind, name_of(entry)) {
                break;
            }
        }
        reply.ok();
    }

    fn readdirplus(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Ok(listing) = self.listing(fh) else { return reply.error(Errno::EBADF) };
        for (next, entry) in (1..).zip(listing.iter()).skip(place(offset)) {
            let name = name_of(entry);
            let dot = name == "." || name == "..";
            let attr = if dot {
                plain(entry.ino(), FileType::Directory, 0, 0)
            } else {
                // Removed meanwhile: the kernel skips it.
                self.look(ino, name).unwrap_or_else(|_| missing())
            };
            if reply.add(attr.ino, next, name, &TTL, &attr, Generation(0)) {
                if !dot {
                    // There was no room for it, so the kernel was not told.
                    self.forget(req, attr.ino, 1);
                }
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
        let seen = rustix::fs::fstatvfs(&self.root).map_err(errno);
        match seen {
            Ok(of) => reply.statfs(
                of.f_blocks,
                of.f_bfree,
                of.f_bavail,
                of.f_files,
                of.f_ffree,
                4096,
                255,
                4096,
            ),
            Err(error) => reply.error(error),
        }
    }
}

thread_local! {
    /// What was read, until it is sent.
    static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

/// The flags of an open without those that the kernel has obeyed already.
fn buffered(flags: i32) -> OFlags {
    let flags = OFlags::from_bits_retain(flags.unsigned_abs());
    // The kernel sends appends with their offset.
    flags - OFlags::DIRECT - OFlags::APPEND - OFlags::NOFOLLOW
}

fn name_of(entry: &rustix::fs::DirEntry) -> &OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes())
}

fn file_attr(stat: &Stat) -> FileAttr {
    let kind = file_type(rustix::fs::FileType::from_raw_mode(stat.st_mode));
    let perm = u16::try_from(stat.st_mode & 0o7777).unwrap_or(0);
    let time = |seconds: i64, nanos: u64| {
        UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs()) + Duration::from_nanos(nanos)
    };
    FileAttr {
        blocks: stat.st_blocks.unsigned_abs(),
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        ..plain(stat.st_ino, kind, perm, stat.st_size.unsigned_abs())
    }
}

fn file_type(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        _ => FileType::RegularFile,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
            Timespec { tv_sec: seconds, tv_nsec: since.subsec_nanos().into() }
        }
    }
}

const ROOT: u64 = 1;
