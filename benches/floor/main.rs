//! What a filesystem in user space costs before it does anything, for `benches/compare`:
//! `cargo build --release --example floor`.
//!
//! `floor null MOUNTPOINT` keeps names and sizes in memory, and every byte is zero. `floor passthrough
//! MOUNTPOINT DIRECTORY` hands every request on to a directory. Both mount as kmsfs does, and serve
//! until somebody unmounts.

#![allow(missing_docs, reason = "a program, which nobody imports")]

mod null;
mod passthrough;

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileType, Generation, INodeNo, InitFlags, KernelConfig, MountOption,
    ReplyAttr, ReplyEmpty, ReplyEntry,
};

/// What a request is answered with.
type Reply<T> = Result<T, Errno>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match words.as_slice() {
        ["null", mountpoint] => fuser::mount(null::Null::new(), mountpoint, &config())?,
        ["passthrough", mountpoint, directory] => {
            let served = passthrough::Passthrough::new(Path::new(directory))?;
            fuser::mount(served, mountpoint, &config())?;
        }
        _ => {
            return Err(
                "usage: floor null MOUNTPOINT | floor passthrough MOUNTPOINT DIRECTORY".into()
            );
        }
    }
    Ok(())
}

fn config() -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("floor".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    config
}

/// Asks the kernel for what kmsfs asks for (`src/fuse/request.rs`), but for what needs an answer:
/// access control lists, and taking privileges away.
fn negotiate(config: &mut KernelConfig) {
    for flag in [
        InitFlags::FUSE_ASYNC_READ,
        InitFlags::FUSE_BIG_WRITES,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_CACHE_SYMLINKS,
    ] {
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_write(MAX_WRITE);
    let _ = config.set_max_readahead(MAX_WRITE).map_err(|most| config.set_max_readahead(most));
    let _ = config.set_max_background(64);
}

/// Attributes with nothing but number, kind, mode and size.
fn plain(ino: u64, kind: FileType, perm: u16, size: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Said of a name that is not there, so that the kernel remembers it.
fn missing() -> FileAttr {
    plain(0, FileType::RegularFile, 0, 0)
}

fn attributes(reply: ReplyAttr, attr: Reply<FileAttr>) {
    match attr {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, made: Reply<FileAttr>) {
    match made {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(reply: ReplyEmpty, done: Reply<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// How many entries of a listing the kernel has.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// How long the kernel keeps what it was told: nobody else changes anything.
const TTL: Duration = Duration::from_secs(3600);
const THREADS: usize = 4;
const MAX_WRITE: u32 = 1 << 20;
