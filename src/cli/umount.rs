//! `kmsfs umount`, and unmounting as the daemon itself does it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use serde_json::json;

use super::args::UmountArgs;
use super::busy;
use super::exit::{CliError, Exit};
use super::mountinfo::{self, Mounted};
use super::mountpoint::{by_number, mount_of};
use super::output::Output;
use super::{live, paths, process};

/// Unmounts and waits until the vault is released.
pub(super) fn run(args: &UmountArgs, output: Output) -> Result<Exit, CliError> {
    let mountpoint = paths::real(&args.mountpoint)?;
    let Some(mount) = mountinfo::at(&mountpoint)? else {
        return if args.if_mounted { Ok(Exit::Ok) } else { Err(not_mounted(&mountpoint)) };
    };
    if args.force {
        abort_connection(&mount)?;
    }
    let how = if args.lazy || args.force { Detach::Lazily } else { Detach::WhenFree };
    if let Err(error) = detach(&mount, how) {
        return Err(explain(&mount, &error));
    }
    // A bind mount of it, or of a part: the filesystem lives on, and what was asked for is done.
    let elsewhere = mountinfo::all()?.into_iter().any(|other| other.device == mount.device);
    let waits = !args.lazy && !elsewhere;
    let released = !waits || wait_for_release(&mount, Duration::from_secs(args.timeout));
    if !released {
        return Err(CliError::new(
            Exit::Busy,
            format!(
                "{} is unmounted, but the vault {} is still in use after {} s",
                mountpoint.display(),
                mount.vault.display(),
                args.timeout
            ),
        )
        .advise("the daemon is still writing, or the mount lives on in another namespace"));
    }
    let value = json!({
        "mountpoint": mountinfo::text(&mountpoint),
        "vault": mountinfo::text(&mount.vault),
        "released": waits,
    });
    output.result(&value, String::new);
    Ok(Exit::Ok)
}

/// When a mountpoint may be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detach {
    /// Only when nobody uses it.
    WhenFree,
    /// At once; the filesystem ends with its last open file.
    Lazily,
}

/// Takes a mount away.
pub(super) fn detach(mount: &Mounted, how: Detach) -> io::Result<()> {
    let above = mount.mountpoint.parent().unwrap_or(Path::new("/"));
    let above = rustix::fs::open(above, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    detach_in(above.as_fd(), mount, how)
}

/// The same where the directory that it is in is held: umount(2) as root, `fusermount3 -u` for
/// everybody else.
pub(super) fn detach_in(above: BorrowedFd<'_>, mount: &Mounted, how: Detach) -> io::Result<()> {
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

fn explain(mount: &Mounted, error: &io::Error) -> CliError {
    let place = mount.mountpoint.display();
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            let holders = busy::holders(mount);
            let who = if holders.is_empty() {
                "close what uses it (a process of another user, or a mount below it), or add --lazy"
                    .to_owned()
            } else {
                format!("{}\n  close them, or add --lazy", busy::describe(&holders))
            };
            CliError::new(Exit::Busy, format!("{place} is busy")).advise(who)
        }
        io::ErrorKind::NotFound => {
            CliError::new(Exit::FuseMissing, format!("cannot unmount {place}: no fusermount3"))
                .advise("install the package fuse3, or run this as root")
        }
        io::ErrorKind::PermissionDenied => {
            CliError::new(Exit::General, format!("cannot unmount {place}: not permitted"))
                .advise("only root and the user who mounted it may unmount it")
        }
        _ => CliError::io(format!("cannot unmount {place}"), error),
    }
}

/// Cuts the kernel off from a daemon that does not answer any more.
fn abort_connection(mount: &Mounted) -> Result<(), CliError> {
    let path = PathBuf::from(CONNECTIONS).join(mount.device.1.to_string()).join("abort");
    std::fs::write(&path, b"1").map_err(|error| {
        CliError::io(format!("cannot abort the mount through {}", path.display()), &error)
            .advise("mount the control filesystem: mount -t fusectl none /sys/fs/fuse/connections")
    })
}

/// Waits until no daemon holds the vault; false when the time is over first.
fn wait_for_release(mount: &Mounted, time: Duration) -> bool {
    // Readers may share a vault, and leave nothing to be written.
    let read_only = mount.has_option("ro");
    let end = Instant::now() + if read_only { time.min(READER_WAIT) } else { time };
    while !live::is_free(&mount.vault) {
        if Instant::now() >= end {
            return read_only;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn not_mounted(mountpoint: &Path) -> CliError {
    CliError::new(Exit::NotMounted, format!("no vault is mounted at {}", mountpoint.display()))
        .advise("kmsfs status lists what is mounted")
}

const CONNECTIONS: &str = "/sys/fs/fuse/connections";
const READER_WAIT: Duration = Duration::from_secs(3);
