//! A vault that is mounted, at a second place: by a bind mount of the first, which takes root.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, major, minor};
use rustix::mount::{MountFlags, mount_bind, mount_remount};

use super::daemon_client::Target;
use super::detach::{Detach, detach};
use super::life::Life;
use super::mountinfo::{self, Mounted};
use super::mountpoint::{Mountpoint, by_number, mount_of};
use crate::cli::env::process;
use crate::cli::report::exit::CliError;
use crate::volume::ROOT;

/// The mount of this vault that another one may be bound to: root's own, for what another user's daemon
/// answers is nothing that root should put into the tree. Not of one that was at this path before.
pub(in crate::cli) fn first(vault: &Path) -> Result<Option<Mounted>, CliError> {
    if !process::is_root() {
        return Ok(None);
    }
    let mounts = mountinfo::all()?.into_iter();
    let mut of_it = mounts.filter(|mount| mount.vault == vault && mount.user == 0);
    let serves = |mount: &Mounted| Life::of(mount) == Life::Alive && Target::of(mount).is_here();
    Ok(of_it.find(|mount| serves(mount) && is_whole(mount)))
}

/// Shows what is mounted at `first` at another place too, where no more is allowed than there, and than
/// `flags` allow.
///
/// # Errors
/// Those of mount(2); nothing is mounted then.
pub(in crate::cli) fn bind(first: &Mounted, at: &Mountpoint, flags: MountFlags) -> io::Result<()> {
    let shown = open(&first.mountpoint)?;
    if mount_of(shown.as_fd())? != first.id {
        return Err(io::Error::other("something else is mounted there by now"));
    }
    mount_bind(by_number(shown.as_fd()), by_number(at.dir()))?;
    let Some(second) = at.mounted()? else {
        return Err(io::Error::other("the bind mount is out of sight"));
    };
    let restricted = restrict(&second, flags);
    if restricted.is_err() {
        detach(&second, Detach::Lazily)?;
    }
    restricted
}

/// A remount sets all flags of a place, those that it has from the first as well.
fn restrict(second: &Mounted, flags: MountFlags) -> io::Result<()> {
    let named = FLAGS.iter().filter(|(name, _)| second.has_option(name));
    let has = named.fold(MountFlags::empty(), |all, (_, flag)| all | *flag);
    if has.contains(flags) {
        return Ok(());
    }
    let place = open(&second.mountpoint)?;
    if mount_of(place.as_fd())? != second.id {
        return Err(io::Error::other("something else is mounted over it"));
    }
    Ok(mount_remount(by_number(place.as_fd()), MountFlags::BIND | has | flags, c"")?)
}

/// False for a bind mount of a part.
fn is_whole(mount: &Mounted) -> bool {
    let stat = open(&mount.mountpoint).and_then(|dir| Ok(fstat(dir)?));
    let device = |device| (major(device), minor(device));
    stat.is_ok_and(|stat| stat.st_ino == ROOT && device(stat.st_dev) == mount.device)
}

fn open(place: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(place, flags, Mode::empty())?)
}

/// The flags of one place, as the mount table has them.
const FLAGS: [(&str, MountFlags); 7] = [
    ("ro", MountFlags::RDONLY),
    ("nosuid", MountFlags::NOSUID),
    ("nodev", MountFlags::NODEV),
    ("noexec", MountFlags::NOEXEC),
    ("noatime", MountFlags::NOATIME),
    ("nodiratime", MountFlags::NODIRATIME),
    ("nosymfollow", MountFlags::NOSYMFOLLOW),
];
