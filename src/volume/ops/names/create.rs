//! Making files, directories and nodes.
//!
//! The backing inode is made by this process and then given to the caller, so for an instant it
//! belongs to us, with the bits that the caller asked for but never with setuid or setgid.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, Mode, RenameFlags, fchmod, fchown, fstat};
use rustix::io::Errno;

use crate::envelope::DirPlace;
use crate::id::DirId;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::handle::Handle;
use crate::volume::backing::listing::raw_names;
use crate::volume::engine::Volume;
use crate::volume::model::attr::{Attr, decode_device};
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::write_first_descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::names::EntryName;

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

/// What is made without being opened.
pub(in crate::volume) enum Node<'a> {
    /// A FIFO, a socket or a device node: its type, its mode, its device number.
    Special(FileType, u32, u64),
    /// A symbolic link with this text.
    Link(&'a str),
}

impl Volume {
    /// Makes a fifo, a socket, a device node or an empty regular file. The kernel then holds a
    /// lookup.
    ///
    /// # Errors
    /// As [`Volume::mkdir`].
    pub fn mknod(&self, parent: u64, name: &[u8], new: NewNode, device: u32) -> Result<Attr> {
        self.tree.writable()?;
        let kind = FileType::from_raw_mode(new.mode);
        if kind == FileType::RegularFile {
            let dir = self.dir(parent)?;
            let name = EntryName::new(&dir, name)?;
            self.make_file(&dir, &name, &new)?;
            return self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale);
        }
        let mode = self.masked(&*self.dir(parent)?, &new)? | (new.mode & SPECIAL);
        self.make(parent, name, &Node::Special(kind, mode, decode_device(device)), new.caller)
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
        self.sync_for_sidecar(&dir, &EntryName::new(&dir, name)?)?;
        // What it inherits does not change until it is there to change along.
        let policies = self.tree.descriptors.read();
        let dir = self.dir(parent)?;
        let name = EntryName::new(&dir, name)?;
        let temp = self.tree.temp_name();
        let made = self.build_dir(&dir, &temp, &name, &new).and_then(|id| {
            self.prepare_sidecar(&dir, &name)?;
            self.publish_dir(&dir, &temp, (&name, id))
        });
        if made.is_err() {
            self.remove_leftover(&dir, &temp);
        }
        drop(policies);
        made?;
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }

    /// Makes a node, gives it its owner and tells the kernel of it.
    pub(in crate::volume) fn make(
        &self,
        parent: u64,
        name: &[u8],
        node: &Node<'_>,
        caller: Caller,
    ) -> Result<Attr> {
        let dir = self.dir(parent)?;
        let name = EntryName::new(&dir, name)?;
        self.sync_for_sidecar(&dir, &name)?;
        self.prepare_sidecar(&dir, &name)?;
        let changing = self.tree.locks.changing(&[parent]);
        self.keep_sidecar(&dir, &name)?;
        let made = self.make_node(&dir, &name.entry, node, caller);
        if made.is_err() {
            self.drop_sidecar(&dir, &name);
        }
        made?;
        drop(changing);
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }

    fn make_node(
        &self,
        dir: &Dir,
        entry: &BackingName,
        node: &Node<'_>,
        caller: Caller,
    ) -> Result<()> {
        let (uid, gid) = self.tree.new_owner(caller, dir.rules()?.setgid);
        node.make(dir, entry)?;
        let special = node.special_bits();
        if uid.is_none() && gid.is_none() && special == 0 {
            return Ok(());
        }
        let held = beneath::hold(dir, entry)?;
        // Somebody may have exchanged the names since: what is not like the new node is left alone.
        if !(self.tree.is_ours(held.found()) && node.is_like(&held)) {
            return Err(VolumeError::Stale);
        }
        let mut given = Ok(());
        if uid.is_some() || gid.is_some() {
            given = held.set_owner(uid, gid);
        }
        if special != 0 {
            given = given.and_then(|()| held.set_mode(held.stat()?.st_mode & 0o7777 | special));
        }
        given.map_err(|error| {
            let _ = beneath::remove(dir, entry);
            error.into()
        })
    }

    /// Makes an empty regular file and opens it for reading and writing.
    ///
    /// # Errors
    /// `Io(EXIST)` if it is there; as [`Volume::mkdir`].
    pub(in crate::volume) fn make_file(
        &self,
        dir: &Arc<Dir>,
        name: &EntryName,
        new: &NewNode,
    ) -> Result<OwnedFd> {
        self.sync_for_sidecar(dir, name)?;
        self.prepare_sidecar(dir, name)?;
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        self.keep_sidecar(dir, name)?;
        let mode = Mode::from_raw_mode(self.masked(dir, new)? & !SPECIAL);
        let made = beneath::create_file(dir, &name.entry, mode);
        let given = made.map_err(VolumeError::from).and_then(|fd| {
            self.give(dir, &fd, new).map(|()| fd).inspect_err(|_| {
                let _ = beneath::remove(dir, &name.entry);
            })
        });
        if given.is_err() {
            self.drop_sidecar(dir, name);
        }
        given
    }

    /// The mode to make something with: a default ACL takes the place of the umask.
    fn masked(&self, dir: &Dir, new: &NewNode) -> Result<u32> {
        self.tree.set_ids.note(new.mode);
        let umask = if dir.rules()?.default_acl { 0 } else { new.umask & 0o777 };
        Ok(new.mode & 0o7777 & !umask)
    }

    /// Gives a new file to whoever it was made for, and the bits that had to wait for that.
    fn give(&self, dir: &Dir, fd: &OwnedFd, new: &NewNode) -> Result<()> {
        let (uid, gid) = self.tree.new_owner(new.caller, dir.rules()?.setgid);
        if uid.is_some() || gid.is_some() {
            fchown(fd, uid, gid)?;
        }
        let special = new.mode & SPECIAL;
        if special != 0 {
            fchmod(fd, Mode::from_raw_mode(fstat(fd)?.st_mode & 0o7777 | special))?;
        }
        Ok(())
    }

    /// Builds a directory under a temporary name, with everything that it needs.
    fn build_dir(
        &self,
        parent: &Dir,
        temp: &BackingName,
        name: &EntryName,
        new: &NewNode,
    ) -> Result<DirId> {
        let above = parent.descriptor()?;
        let (descriptor, keys) = self.keyring.new_dir(above, name.entry.bytes())?;
        if !descriptor.fits() {
            return Err(VolumeError::FormerKeys);
        }
        let mode = self.masked(parent, new)?;
        let building = if self.tree.is_root() { mode } else { mode | OWNER_ALL };
        beneath::make_dir(parent, temp, Mode::from_raw_mode(building & !SPECIAL))?;
        let fd = beneath::open_dir(parent, temp)?;
        // Somebody may have exchanged the names since. A directory with a descriptor is not the new
        // one, and only an empty directory of ours is given away.
        let (uid, gid) = self.tree.new_owner(new.caller, parent.rules()?.setgid);
        let gives = uid.is_some() || gid.is_some();
        if gives && !(self.tree.is_ours(&fstat(&fd)?) && raw_names(&fd)?.is_empty()) {
            return Err(VolumeError::Stale);
        }
        write_first_descriptor(&fd, &descriptor.encode(&keys))?;
        if gives {
            fchown(&fd, uid, gid)?;
        }
        self.finish_mode(&fd, mode, building)?;
        Ok(descriptor.dir)
    }

    /// Takes back what was only for building, and adds what had to wait for the owner. The group
    /// bits stay as they are: under an ACL they are its mask.
    fn finish_mode(&self, fd: &OwnedFd, mode: u32, building: u32) -> Result<()> {
        let extra = building & !mode;
        if extra == 0 && mode & SPECIAL == 0 {
            return Ok(());
        }
        let now = fstat(fd)?.st_mode & 0o7777;
        let mode = Mode::from_raw_mode((now & !extra) | (mode & SPECIAL));
        Ok(fchmod(fd, mode)?)
    }

    fn publish_dir(
        &self,
        dir: &Dir,
        temp: &BackingName,
        (name, id): (&EntryName, DirId),
    ) -> Result<()> {
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        self.keep_sidecar(dir, name)?;
        let place = DirPlace::below(dir.descriptor()?.dir, name.entry.bytes());
        // If a directory is there, it keeps its place, and the rename is refused.
        if !self.entry_exists(dir, &name.entry)? {
            self.claim_place(place, id);
        }
        // Before the rename as well, so that no sync of the directory can miss it.
        self.tree.unsynced.add(dir.ino(), &name.entry);
        let renamed = beneath::rename((dir, temp), (dir, &name.entry), RenameFlags::NOREPLACE);
        renamed.inspect_err(|_| self.drop_sidecar(dir, name))?;
        self.tree.unsynced.add(dir.ino(), &name.entry);
        Ok(())
    }
}

impl Node<'_> {
    /// Makes it, for us and without setuid and setgid.
    fn make(&self, dir: &Dir, entry: &BackingName) -> Result<(), Errno> {
        match self {
            Self::Special(kind, mode, device) => {
                let mode = Mode::from_raw_mode(mode & !SPECIAL);
                match beneath::make_node(dir, entry, (*kind, mode), *device) {
                    // The rules of a confined daemon answer so when the capability is missing.
                    Err(Errno::ACCESS) if kind.is_block_device() => Err(Errno::PERM),
                    made => made,
                }
            }
            Self::Link(text) => beneath::make_link(dir, entry, text),
        }
    }

    fn special_bits(&self) -> u32 {
        match self {
            Self::Special(_, mode, _) => mode & SPECIAL,
            Self::Link(_) => 0,
        }
    }

    /// True if what is held is what was made, or its twin.
    fn is_like(&self, held: &Handle) -> bool {
        let found = held.found();
        let kind = FileType::from_raw_mode(found.st_mode);
        let same = match self {
            Self::Special(made, _, device) => kind == *made && found.st_rdev == *device,
            Self::Link(text) => {
                kind == FileType::Symlink && held.read_link().is_ok_and(|t| t == text.as_bytes())
            }
        };
        same && found.st_nlink == 1
    }
}
