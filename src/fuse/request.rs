//! The small translations that many requests share.

use fuser::{
    Errno, FopenFlags, InitFlags, KernelConfig, OpenAccMode, OpenFlags, ReplyEmpty, ReplyXattr,
    Request,
};

use super::errno::errno;
use crate::volume::backing::Durability;
use crate::volume::content::Reserve;
use crate::volume::{Allocate, Caller, OpenFor, Sink, VolumeError};

type Reply<T> = Result<T, VolumeError>;

/// Who checks owners, modes and ACLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permissions {
    Kernel,
    /// Nobody: whoever may enter may do what root may.
    Nobody,
}

/// The largest write: what the kernel allows by default (`fs.fuse.max_pages_limit`).
const MAX_WRITE: u32 = 1 << 20;
const MAX_BACKGROUND: u16 = 64;

/// Capabilities of the kernel that are used where it has them.
///
/// Not FUSE_ASYNC_DIO: when such a write is done, the kernel does not drop what it has cached of the
/// range, so who read it meanwhile goes on reading old bytes.
const WANTED: [InitFlags; 8] = [
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_DONT_MASK,
    // fuser does not know what this asks of a filesystem: `volume::access::privileges` does it.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

/// Tells the kernel what this filesystem can do.
///
/// `handles`: a number that the kernel has forgotten leads nowhere, unless that was asked for: then no
/// file handle is given out that would.
pub(super) fn negotiate(config: &mut KernelConfig, permissions: Permissions, handles: InitFlags) {
    // With ACLs of its own, the kernel checks permissions whatever the mount says.
    let acls = (permissions == Permissions::Kernel).then_some(InitFlags::FUSE_POSIX_ACL);
    for flag in WANTED.into_iter().chain(acls).chain([handles]) {
        // An older kernel lacks some; everything works without them, if slower.
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_readahead(MAX_WRITE).map_err(|most| config.set_max_readahead(most));
    let _ = config.set_max_background(MAX_BACKGROUND);
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

pub(super) fn wanted(flags: OpenFlags) -> OpenFor {
    match flags.acc_mode() {
        OpenAccMode::O_RDONLY => OpenFor::Reading,
        OpenAccMode::O_WRONLY => OpenFor::Writing,
        OpenAccMode::O_RDWR => OpenFor::Both,
    }
}

/// True if an open file is to be read, by who did not ask that this leave no trace.
pub(super) fn is_access(flags: OpenFlags) -> bool {
    wanted(flags) != OpenFor::Writing && flags.0 & libc::O_NOATIME == 0
}

pub(super) fn open_flags(keep_cache: bool) -> FopenFlags {
    if keep_cache { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() }
}

pub(super) fn allocate_mode(mode: i32) -> Option<Allocate> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Some(Allocate::Reserve(Reserve::Grow)),
        libc::FALLOC_FL_KEEP_SIZE => Some(Allocate::Reserve(Reserve::KeepSize)),
        PUNCH => Some(Allocate::Punch),
        libc::FALLOC_FL_ZERO_RANGE => Some(Allocate::Zero(Reserve::Grow)),
        ZERO_KEEP => Some(Allocate::Zero(Reserve::KeepSize)),
        _ => None,
    }
}

/// What fdatasync(2) asks for, or fsync(2).
pub(super) fn durability(datasync: bool) -> Durability {
    if datasync { Durability::Contents } else { Durability::Everything }
}

pub(super) fn taken(full: bool) -> Sink {
    if full { Sink::Full } else { Sink::Taken }
}

pub(super) fn empty(reply: ReplyEmpty, done: Reply<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Attribute calls ask for the length first, or offer room for the value.
pub(super) fn sized(reply: ReplyXattr, room: u32, value: Reply<Vec<u8>>) {
    match value {
        Ok(value) => match u32::try_from(value.len()) {
            Ok(length) if room == 0 => reply.size(length),
            Ok(length) if length <= room => reply.data(&value),
            _ => reply.error(Errno::ERANGE),
        },
        Err(error) => reply.error(errno(&error)),
    }
}
