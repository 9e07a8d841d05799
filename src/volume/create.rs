//! Making files, directories and nodes.
//!
//! The backing inode is made by this process and then given to the caller, so for an instant it
//! belongs to us, with the bits that the caller asked for but never with setuid or setgid.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, chownat, mkdirat, mknodat, openat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::Volume;
use super::attr::{Attr, decode_device};
use super::dir::{Dir, write_descriptor};
use super::error::{Result, VolumeError};
use super::names::BackingName;
use super::place::proc_path;
use super::tree::Caller;

/// The bits that are set only once the owner is right.
const SPECIAL: u32 = 0o6000;
/// What this process needs in a directory that it fills.
const OWNER_ALL: u32 = 0o700;

/// What kind of node to make, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct NewNode {
    /// Permission bits and, for [`Volume::mknod`], the type, as `st_mode` has them.
    pub mode: u32,
    /// The caller's umask: it counts unless the directory has a default ACL.
    pub umask: u32,
    /// Who asks.
    pub caller: Caller,
}

/// A node was made: what is left to do to it.
pub(super) struct Placed {
    pub(super) caller: Caller,
    pub(super) special_bits: u32,
}

impl Volume {
    /// Makes a fifo, a socket, a device node or an empty regular file. The kernel then holds a
    /// lookup.
    ///
    /// # Errors
    /// As [`Volume::mkdir`].
    pub fn mknod(&self, parent: u64, name: &[u8], new: NewNode, device: u32) -> Result<Attr> {
        self.tree.writable()?;
        self.make(parent, name, |dir, entry| {
            let kind = FileType::from_raw_mode(new.mode);
            let mode = Mode::from_raw_mode(self.masked(dir, &new)? & !SPECIAL);
            mknodat(dir, entry, kind, mode, decode_device(device))?;
            Ok(Placed { caller: new.caller, special_bits: new.mode & SPECIAL })
        })
    }

    /// Makes a directory under its parent's policy. The kernel then holds a lookup.
    ///
    /// Crash order: it is complete, with its descriptor, before it gets its name.
    ///
    /// # Errors
    /// `Io(EXIST)`, `NameTooLong`, `ReservedName`, `ReadOnly`; `KeyUnusable` or `Tampered` if the
    /// parent's descriptor cannot be used; those of the backing filesystem.
    pub fn mkdir(&self, parent: u64, name: &[u8], new: NewNode) -> Result<Attr> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = BackingName::new(&dir, name)?;
        let temp = self.tree.temp_name();
        let made = self
            .build_dir(&dir, &temp, &new)
            .and_then(|()| self.prepare_sidecar(&dir, &name))
            .and_then(|_| self.settle_dir(&dir, &temp, &name));
        if made.is_err() {
            self.remove_leftover(&dir, temp.as_bytes());
        }
        made?;
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }

    /// Makes a node by `make`, gives it its owner and tells the kernel of it.
    pub(super) fn make(
        &self,
        parent: u64,
        name: &[u8],
        make: impl FnOnce(&Arc<Dir>, &[u8]) -> Result<Placed>,
    ) -> Result<Attr> {
        let dir = self.dir(parent)?;
        let name = BackingName::new(&dir, name)?;
        let fresh_sidecar = self.prepare_sidecar(&dir, &name)?;
        let changing = self.tree.locks.changing(&[parent]);
        let placed = match make(&dir, &name.entry) {
            Ok(placed) => placed,
            Err(error) => {
                if fresh_sidecar {
                    self.drop_sidecar(&dir, &name);
                }
                return Err(error);
            }
        };
        if let Err(error) = self.give(&dir, &name.entry, &placed) {
            let _ = unlinkat(&*dir, &*name.entry, AtFlags::empty());
            self.drop_sidecar(&dir, &name);
            return Err(error);
        }
        drop(changing);
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }

    /// Makes an empty regular file and opens it for reading and writing.
    ///
    /// # Errors
    /// `Io(EXIST)` if it is there; as [`Volume::mkdir`].
    pub(super) fn make_file(
        &self,
        dir: &Arc<Dir>,
        name: &BackingName,
        new: &NewNode,
    ) -> Result<OwnedFd> {
        let fresh_sidecar = self.prepare_sidecar(dir, name)?;
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(self.masked(dir, new)? & 0o777);
        let made = openat(dir, &*name.entry, flags | OFlags::CLOEXEC, mode);
        let given = made.map_err(VolumeError::from).and_then(|fd| {
            let placed = Placed { caller: new.caller, special_bits: new.mode & SPECIAL };
            self.give_fd(dir, &fd, &placed).map(|()| fd).inspect_err(|_| {
                let _ = unlinkat(dir, &*name.entry, AtFlags::empty());
            })
        });
        if given.is_err() && fresh_sidecar {
            self.drop_sidecar(dir, name);
        }
        given
    }

    /// The mode to make something with: a default ACL takes the place of the umask.
    fn masked(&self, dir: &Dir, new: &NewNode) -> Result<u32> {
        self.tree.grants.note(new.mode);
        let umask = if dir.rules()?.default_acl { 0 } else { new.umask & 0o777 };
        Ok(new.mode & 0o7777 & !umask)
    }

    fn give(&self, dir: &Dir, entry: &[u8], placed: &Placed) -> Result<()> {
        let (uid, gid) = self.tree.new_owner(placed.caller, dir.rules()?.setgid);
        if uid.is_some() || gid.is_some() {
            chownat(dir, entry, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if placed.special_bits != 0 {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            add_bits(openat(dir, entry, flags, Mode::empty())?, placed.special_bits)?;
        }
        Ok(())
    }

    fn give_fd(&self, dir: &Dir, fd: &OwnedFd, placed: &Placed) -> Result<()> {
        let (uid, gid) = self.tree.new_owner(placed.caller, dir.rules()?.setgid);
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(fd, uid, gid)?;
        }
        if placed.special_bits != 0 {
            add_bits(fd, placed.special_bits)?;
        }
        Ok(())
    }

    /// Builds a directory under a temporary name, with everything that it needs.
    fn build_dir(&self, parent: &Dir, temp: &str, new: &NewNode) -> Result<()> {
        let above = parent.descriptor()?;
        let (descriptor, keys) = self.keyring.new_dir(above)?;
        let mode = self.masked(parent, new)?;
        let building = if self.tree.is_root() { mode } else { mode | OWNER_ALL };
        mkdirat(parent, temp, Mode::from_raw_mode(building & !SPECIAL))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent, temp, flags, Mode::empty())?;
        write_descriptor(&fd, &descriptor.encode(&keys))?;
        let (uid, gid) = self.tree.new_owner(new.caller, parent.rules()?.setgid);
        if uid.is_some() || gid.is_some() {
            rustix::fs::fchown(&fd, uid, gid)?;
        }
        self.finish_mode(&fd, mode, building)
    }

    /// Takes back what was only for building, and adds what had to wait for the owner. The group
    /// bits stay as they are: under an ACL they are its mask.
    fn finish_mode(&self, fd: &OwnedFd, mode: u32, building: u32) -> Result<()> {
        let extra = building & !mode;
        if extra == 0 && mode & SPECIAL == 0 {
            return Ok(());
        }
        let now = rustix::fs::fstat(fd)?.st_mode & 0o7777;
        let mode = Mode::from_raw_mode((now & !extra) | (mode & SPECIAL));
        Ok(rustix::fs::fchmod(fd, mode)?)
    }

    fn settle_dir(&self, dir: &Dir, temp: &str, name: &BackingName) -> Result<()> {
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        renameat_with(dir, temp, dir, &*name.entry, RenameFlags::NOREPLACE)?;
        self.tree.unsynced.add(dir.ino(), &name.entry);
        Ok(())
    }

    /// True if the backing directory has this entry.
    pub(super) fn entry_exists(&self, dir: &Dir, entry: &[u8]) -> Result<bool> {
        match statat(dir, entry, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn add_bits(fd: impl AsFd, bits: u32) -> Result<()> {
    let now = rustix::fs::fstat(&fd)?.st_mode & 0o7777;
    let mode = Mode::from_raw_mode(now | bits);
    Ok(rustix::fs::chmodat(rustix::fs::CWD, proc_path(fd.as_fd()), mode, AtFlags::empty())?)
}
