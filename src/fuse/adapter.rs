//! The requests of the kernel, one by one: unpack, one call of the volume, reply.

mod export;
mod ioctl;
mod listing;
mod open;
mod replies;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use super::Ended;
use super::activity::Activity;
use super::convert::{file_attr, new_time};
use super::errno::errno;
use super::handles::Handles;
use super::options::MountOptions;
use super::received;
use super::request::{
    Permissions, allocate_mode, caller, durability, empty, is_access, negotiate, open_flags, sized,
    wanted,
};
use crate::volume::attr::AttrChange;
use crate::volume::content::SeekTo;
use crate::volume::{
    DirStream, FileHandle as OpenFile, NewNode, Origin, RenameHow, SetMode, Volume, VolumeError,
};
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags,
    PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

const NAME_MAX: u32 = 255;
/// After this answer the kernel asks for no more attributes of this kind, of any inode.
const NO_XATTRS: Errno = Errno::ENOSYS;
/// What the names of ACLs begin with, as attributes.
const ACL: &[u8] = b"system.posix_acl_";
/// The kernel named a handle that is not open.
const BAD_HANDLE: VolumeError = VolumeError::Io(rustix::io::Errno::BADF);

/// A volume as fuser's filesystem.
pub(super) struct Adapter {
    volume: Arc<Volume>,
    files: Handles<OpenFile>,
    streams: Handles<DirStream>,
    ttl: Duration,
    keeps_listings: bool,
    shared: bool,
    permissions: Permissions,
    xattrs: bool,
    ended: Arc<Ended>,
    notifier: Arc<OnceLock<Notifier>>,
    activity: Option<Arc<Activity>>,
    flags: ioctl::Flags,
    handles: InitFlags,
    searches: Arc<export::Searches>,
}

type Reply<T> = Result<T, VolumeError>;
/// Who hears of the end and of requests, and how the kernel is told something.
type Told = (Arc<Ended>, Arc<OnceLock<Notifier>>, Option<Arc<Activity>>);

impl Adapter {
    pub(super) fn new(
        volume: Arc<Volume>,
        options: &MountOptions,
        (ended, notifier, activity): Told,
    ) -> Self {
        Self {
            volume,
            files: Handles::default(),
            streams: Handles::default(),
            ttl: options.time_to_live(),
            keeps_listings: options.keeps_listings(),
            shared: options.shared,
            permissions: options.permissions(),
            xattrs: options.xattrs,
            ended,
            notifier,
            activity,
            flags: ioctl::Flags::default(),
            handles: options.handles(),
            searches: Arc::default(),
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.flags.learn(config);
        negotiate(config, self.permissions, self.handles);
        Ok(())
    }

    fn destroy(&mut self) {
        self.flags.finish();
        self.searches.finish();
        self.ended.set();
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "." || name == ".." {
            return self.by_number(reply, parent.0, name == "..");
        }
        match self.volume().lookup(parent.0, name.as_bytes()) {
            Ok(Some(attr)) => self.entry(reply, Ok(attr)),
            Ok(None) => self.missing(reply),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.volume.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(reply, self.volume().attr(ino.0));
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime) = (atime.map(new_time), mtime.map(new_time));
        let change = AttrChange { mode, uid, gid, size, atime, mtime };
        let changed = self.volume().set_attr(ino.0, &change, caller(req));
        if changed.is_err() {
            // Some of it may have been changed.
            self.forget_attributes(ino.0);
        }
        self.attr(reply, changed);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume().read_link(ino.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let new = NewNode { mode, umask, caller: caller(req) };
        self.entry(reply, self.volume().mknod(parent.0, name.as_bytes(), new, rdev));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = NewNode { mode, umask, caller: caller(req) };
        self.entry(reply, self.volume().mkdir(parent.0, name.as_bytes(), new));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.volume().unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.volume().rmdir(parent.0, name.as_bytes()));
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = received::wiping(target.as_os_str().as_bytes(), |target| {
            self.volume().symlink(parent.0, link_name.as_bytes(), target, caller(req))
        });
        self.entry(reply, made);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let how = RenameHow {
            no_replace: flags.contains(RenameFlags::RENAME_NOREPLACE),
            exchange: flags.contains(RenameFlags::RENAME_EXCHANGE),
            whiteout: flags.contains(RenameFlags::RENAME_WHITEOUT),
        };
        let (from, to) = ((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes()));
        empty(reply, self.volume().rename(from, to, how, caller(req)));
    }

    fn link(
        &self,
        _req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let made = self.volume().link(ino.0, newparent.0, newname.as_bytes());
        self.entry(reply, made);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.volume().open_as(ino.0, wanted(flags), caller(req)) {
            Ok(opened) => {
                let keep = opened.keep_cache && !self.shared;
                let accessed = is_access(flags) && self.accessed(&opened.handle);
                if opened.resized || accessed {
                    // Before the answer: the first read goes by the right size.
                    self.forget_attributes(ino.0);
                }
                let direct =
                    if opened.damaged { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
                let handle = self.files.add(opened.handle);
                reply.opened(FileHandle(handle), open_flags(keep) | direct);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = NewNode { mode, umask, caller: caller(req) };
        let (name, wanted) = (name.as_bytes(), wanted(OpenFlags(flags)));
        let made = self.volume().create_file(parent.0, name, &new, wanted).map_err(|error| {
            // Someone else was faster. The kernel takes what it is given here for made by the caller,
            // and looks at no owner and no mode: it has to look the name up again, and open that.
            let exists = matches!(error, VolumeError::Io(rustix::io::Errno::EXIST));
            if exists && flags & libc::O_EXCL == 0 { VolumeError::Stale } else { error }
        });
        match made {
            Ok((attr, handle)) => {
                let handle = FileHandle(self.files.add(handle));
                let (generation, attr) = (Generation(attr.generation), file_attr(&attr));
                reply.created(&self.ttl, &attr, generation, handle, open_flags(!self.shared));
            }
            Err(error) => reply.error(errno(&error)),
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
        self.contents(reply, fh, offset, size);
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let cached = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let origin = if cached { Origin::PageCache } else { Origin::Caller };
        // Pages that were written through a mapping while that was allowed are not lost.
        let open = match origin {
            Origin::Caller => self.file(fh),
            Origin::PageCache => self.known(fh),
        };
        let strips = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let open = open.and_then(|open| if strips { self.stripped(req, fh) } else { Ok(open) });
        let written =
            received::wiping(data, |data| open.and_then(|open| open.write(offset, data, origin)));
        match written {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => {
                if let (Origin::PageCache, Ok(open)) = (origin, self.known(fh)) {
                    self.volume.refused_pages(&open);
                }
                reply.error(errno(&error));
            }
        }
    }

    // Every write is passed on before it is answered, so close has nothing to wait for: the kernel
    // stops asking after this answer.
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
        if let Some(open) = self.files.remove(fh.0) {
            self.volume.close(open);
        }
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
        let what = durability(datasync);
        empty(reply, self.known(fh).and_then(|open| self.volume().sync_file(&open, what)));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.stream_opened(reply, ino.0);
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.names(reply, fh, offset);
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.names_and_attributes(reply, fh, offset);
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.streams.remove(fh.0));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let what = durability(datasync);
        let synced = self.stream(fh).and_then(|stream| self.volume().sync_stream(&stream, what));
        empty(reply, synced);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume().space() {
            Ok(space) => reply.statfs(
                space.blocks,
                space.free,
                space.available,
                space.files,
                space.files_free,
                space.block_size,
                NAME_MAX,
                space.fragment,
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        if !self.xattrs {
            return reply.error(NO_XATTRS);
        }
        let mode = match flags {
            libc::XATTR_CREATE => SetMode::Create,
            libc::XATTR_REPLACE => SetMode::Replace,
            _ => SetMode::Any,
        };
        let set = received::wiping(value, |value| {
            self.volume().set_xattr(ino.0, name.as_bytes(), value, mode, caller(req))
        });
        if self.permissions == Permissions::Nobody && name.as_bytes().starts_with(ACL) {
            // It is an attribute like others for the kernel then, but has changed the mode.
            self.forget_attributes(ino.0);
        }
        empty(reply, set);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if !self.xattrs {
            return reply.error(NO_XATTRS);
        }
        sized(reply, size, self.volume().xattr(ino.0, name.as_bytes(), caller(req)));
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if !self.xattrs {
            return reply.error(NO_XATTRS);
        }
        sized(reply, size, self.volume().xattr_names(ino.0, caller(req)));
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if !self.xattrs {
            return reply.error(NO_XATTRS);
        }
        empty(reply, self.volume().remove_xattr(ino.0, name.as_bytes(), caller(req)));
    }

    // Asked only where nobody checks permissions.
    fn access(&self, _req: &Request, ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        self.allowed_to_root(reply, ino.0, mask);
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = allocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let open = self.changing(req, fh);
        let done = open.and_then(|open| self.volume().allocate(&open, mode, offset, length));
        empty(reply, done);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let to = match whence {
            libc::SEEK_DATA => SeekTo::Data,
            libc::SEEK_HOLE => SeekTo::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        match self.file(fh).and_then(|open| self.volume().seek(&open, offset, to)) {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copied = self.file(fh_in).and_then(|from| {
            let to = self.changing(req, fh_out)?;
            self.volume().copy_range((&from, offset_in), (&to, offset_out), len)
        });
        match copied {
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.asked(reply, ino.0, cmd, in_data);
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel then takes every file to be ready, and stops asking.
        reply.error(Errno::ENOSYS);
    }
}
