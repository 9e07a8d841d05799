//! Taking a mount away.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use super::mountinfo::Mounted;
use super::mountpoint::{by_number, mount_of};
use crate::cli::env::process;

/// When a mountpoint may be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Detach {
    /// Only when nobody uses it.
    WhenFree,
    /// At once; the filesystem ends with its last open file.
    Lazily,
}

/// Takes a mount away.
pub(in crate::cli) fn detach(mount: &Mounted, how: Detach) -> io::Result<()> {
    let above = mount.mountpoint.parent().unwrap_or(Path::new("/"));
    let above = rustix::fs::open(above, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    detach_in(above.as_fd(), mount, how)
}

/// The same, with the directory that it is in held: by umount(2) as root, by `fusermount3 -u` for
/// everybody else.
pub(in crate::cli) fn detach_in(
    above: BorrowedFd<'_>,
    mount: &Mounted,
    how: Detach,
) -> io::Result<()> {
    let mountpoint = &mount.mountpoint;
    let name = mountpoint.file_name().ok_or(io::ErrorKind::ResourceBusy)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let there = rustix::fs::openat(above, name, flags, Mode::empty())?;
    if mount_of(there.as_fd())? != mount.id {
        return Err(io::Error::other("something else is mounted over it"));
    }
    // What holds it would keep it busy. As long as it is there, nothing else takes its name.
    drop(there);
    if process::is_root() {
        let mut flags = UnmountFlags::NOFOLLOW;
        if how == Detach::Lazily {
            flags |= UnmountFlags::DETACH;
        }
        return Ok(rustix::mount::unmount(by_number(above).join(name), flags)?);
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for program in ["fusermount3", "fusermount"] {
        match fusermount(program, mountpoint, how) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
            done => return done,
        }
    }
    Err(last)
}

fn fusermount(program: &str, mountpoint: &Path, how: Detach) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg("-u");
    if how == Detach::Lazily {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).env("LC_ALL", "C").output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("busy") {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    Err(io::Error::other(text.trim().to_owned()))
}
