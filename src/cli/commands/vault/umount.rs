//! `kmsfs umount`, and unmounting as the daemon itself does it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::args::UmountArgs;
use crate::cli::env::mounts::daemon_client::Target;
use crate::cli::env::mounts::detach::{Detach, detach};
use crate::cli::env::mounts::farewell::Listening;
use crate::cli::env::mounts::mountinfo::{self, Mounted};
use crate::cli::env::mounts::{busy, daemon_client};
use crate::cli::env::paths;
use crate::cli::report::exit::{CliError, Exit};
use crate::cli::report::output::Output;

/// Unmounts and waits until the vault is released.
pub(in crate::cli) fn run(args: &UmountArgs, output: Output) -> Result<Exit, CliError> {
    let mountpoint = paths::real(&args.mountpoint)?;
    let Some(mount) = mountinfo::at(&mountpoint)? else {
        return if args.if_mounted { Ok(Exit::Ok) } else { Err(not_mounted(&mountpoint)) };
    };
    if args.force {
        abort_connection(&mount)?;
    }
    let is_here = args.lazy || Target::of(&mount).is_here();
    let listening = if args.lazy { None } else { Listening::to(&mount) };
    let how = if args.lazy || args.force { Detach::Lazily } else { Detach::WhenFree };
    if let Err(error) = detach(&mount, how) {
        return Err(explain(&mount, &error));
    }
    // A bind mount of it, or of a part: the filesystem lives on, and what was asked for is done.
    let elsewhere = mountinfo::all()?.into_iter().any(|other| other.device == mount.device);
    // A vault that somebody else's mount only names is not waited for, nor one that is not there.
    let waits = !args.lazy && !elsewhere && is_here && mount.is_believable();
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
    if let Some(listening) = listening.filter(|_| waits) {
        listening.outcome(&mount.vault)?;
    }
    let value = json!({
        "mountpoint": mountinfo::text(&mountpoint),
        "vault": mount.believed_vault().map(mountinfo::text),
        "released": waits,
    });
    output.result(&value, String::new);
    Ok(Exit::Ok)
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
    while !daemon_client::is_free(&mount.vault) {
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
