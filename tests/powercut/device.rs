//! A disk that remembers: one file of a small FUSE filesystem in this process, under a loop device.
//!
//! The loop driver turns what a filesystem asks of a disk into reads, writes and fsyncs of that
//! file, so one thread that answers them sees every write and every flush in one order (a write
//! with FUA comes as a write and a flush). Marks of the workloads stand in the same order: when a
//! mark is made, whatever an fsync has waited for stands before it.
//!
//! Nothing here can wait for itself: the thread writes to memory only, and opens and mounts are
//! done by other processes or threads.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::image::Image;
use crate::tools::{program, run, try_run};

/// What happened on a disk, in order.
#[derive(Clone)]
pub(crate) enum Event {
    /// Units: bytes.
    Write { offset: u64, bytes: Arc<[u8]> },
    /// Everything before it is durable.
    Flush,
    /// Something that a workload knows; the number is its own.
    Mark(usize),
}

/// A disk that is plugged in. Dropping it pulls the plug, so unmount first.
pub(crate) struct Disk {
    state: Arc<State>,
    dir: PathBuf,
    session: Option<BackgroundSession>,
    device: PathBuf,
}

struct State {
    inner: Mutex<Inner>,
    size: u64,
}

struct Inner {
    image: Image,
    events: Vec<Event>,
}

impl Disk {
    /// Plugs in a disk with these contents; `dir` is an empty directory for its file.
    pub(crate) fn plug(image: Image, dir: &Path) -> io::Result<Self> {
        let size = image.size();
        let inner = Mutex::new(Inner { image, events: Vec::new() });
        let state = Arc::new(State { inner, size });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".to_owned())];
        let session = fuser::spawn_mount(Served(Arc::clone(&state)), dir, &config)?;
        let mut disk =
            Self { state, dir: dir.to_owned(), session: Some(session), device: PathBuf::new() };
        let mut losetup = Command::new(program("losetup"));
        losetup.args(["--find", "--show"]).arg(dir.join(FILE));
        let device = run(&mut losetup).map_err(|error| {
            io::Error::other(format!("these tests need a loop device, as root: {error}"))
        })?;
        disk.device = device.trim().into();
        Ok(disk)
    }

    /// The block device.
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// Notes something of the workload's in the order of writes and flushes.
    pub(crate) fn mark(&self, number: usize) {
        self.state.lock().events.push(Event::Mark(number));
    }

    /// What is on the disk now.
    pub(crate) fn image(&self) -> Image {
        self.state.lock().image.clone()
    }

    /// Starts a recording: what is on the disk now, and no events.
    pub(crate) fn start(&self) -> Image {
        let mut inner = self.state.lock();
        inner.events.clear();
        inner.image.clone()
    }

    /// The events since the start.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.state.lock().events.clone()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.device.as_os_str().is_empty() {
            try_run(Command::new(program("losetup")).arg("--detach").arg(&self.device));
        }
        if let Some(session) = self.session.take() {
            // Lazily, because a filesystem that could not be unmounted still holds the file.
            try_run(Command::new(program("umount")).arg("--lazy").arg(&self.dir));
            drop(session);
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let root = ino == INodeNo::ROOT;
        FileAttr {
            ino,
            size: if root { 0 } else { self.size },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if root { FileType::Directory } else { FileType::RegularFile },
            perm: if root { 0o700 } else { 0o600 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The filesystem of the one file.
struct Served(Arc<State>);

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            reply.entry(&TTL, &self.0.attr(INO), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.0.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Past the page cache: a write of the loop device is a write here before it is answered.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&self.0.lock().image.read(offset, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut inner = self.0.lock();
        if !inner.image.write(offset, data) {
            return reply.error(Errno::ENOSPC);
        }
        inner.events.push(Event::Write { offset, bytes: data.into() });
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.0.lock().events.push(Event::Flush);
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // No discards: then the loop device offers none.
        reply.error(Errno::EOPNOTSUPP);
    }
}

const FILE: &str = "disk";
const INO: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(3600);
