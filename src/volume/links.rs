//! Symbolic links and hard links.
//!
//! A link's target is encrypted under the keys of the volume's *root* directory, so that a link
//! may be renamed and hard linked anywhere. One that is too long for a backing link is kept in a
//! file of the volume's own directory: see [`LongLink`].

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, Stat, fdatasync, fsync};
use rustix::io::Errno;

use super::attr::Attr;
use super::beneath::{self, BackingName, Name};
use super::create::Node;
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::handle::Handle;
use super::inode::ROOT;
use super::names::{self, EntryName};
use super::tree::Caller;
use super::{Volume, own_file};
use crate::crypto::random;
use crate::envelope::{LINK_TEXT_MAX, LongLink, TARGET_MAX, link_target_len};

/// In the volume's own directory: the files of long targets.
const LONG_LINKS: Name<'static> = Name::literal("links");

impl Volume {
    /// Makes a symbolic link. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `NameTooLong` for a target over 4095 bytes; `Io(EXIST)`; as [`Volume::mkdir`].
    pub fn symlink(&self, parent: u64, name: &[u8], target: &[u8], caller: Caller) -> Result<Attr> {
        self.tree.writable()?;
        if target.len() > TARGET_MAX {
            return Err(VolumeError::NameTooLong);
        }
        let encoded = self.dir(ROOT)?.keys()?.encode_link(target);
        let is_long = encoded.len() > LINK_TEXT_MAX;
        let id = is_long.then(random::id16).transpose()?;
        let long = id.map(|id| LongLink::new(target.len(), id));
        if let Some(long) = &long {
            self.write_long_link(long, &encoded)?;
        }
        let text = long.as_ref().map_or(encoded, LongLink::text);
        let made = self.make(parent, name, &Node::Link(&text), caller);
        if let (Err(_), Some(long)) = (&made, &long) {
            self.remove_long_link(long.id());
        }
        made
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Tampered` if it was not made by this volume; `Io(INVAL)` for what is no link.
    pub fn read_link(&self, ino: u64) -> Result<Vec<u8>> {
        self.decode_link(self.hold(ino)?.read_link()?)
    }

    /// The target that the text of a backing link stands for.
    pub(super) fn decode_link(&self, text: Vec<u8>) -> Result<Vec<u8>> {
        let root = self.dir(ROOT)?;
        let encoded = match LongLink::parse(&text) {
            Some(long) => self.read_long_link(&long)?,
            None => text,
        };
        Ok(root.keys()?.decode_link(&encoded)?)
    }

    /// Gives `ino` the further name `name` in `parent`. The kernel then holds one lookup more.
    ///
    /// # Errors
    /// `Io(EXIST)`, `CrossPolicy`, `Io(MLINK)`, and as [`Volume::mkdir`].
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = EntryName::new(&dir, name)?;
        self.cross_link(ino, &dir)?;
        let held = self.hold(ino)?;
        let fresh_sidecar = self.prepare_sidecar(&dir, &name)?;
        let changing = self.tree.locks.changing(&[parent]);
        let linked = self.tree.renaming(|| beneath::add_name(&held, &*dir, &name.entry));
        drop(changing);
        if linked.is_err() && fresh_sidecar {
            self.drop_sidecar(&dir, &name);
        }
        linked?;
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }

    /// The length of the target of a link in the long form.
    pub(super) fn long_link_length(&self, ino: u64, stat: &Stat) -> Result<u64> {
        let text = self.hold(ino)?.read_link()?;
        let backing = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(LongLink::parse(&text).map_or(backing, |long| long.length() as u64))
    }

    /// Before the last name of a link goes: the file of its target goes after it.
    pub(super) fn long_link_of(&self, held: &Handle) -> Option<String> {
        let stat = held.found();
        let is_link = stat.st_mode & libc::S_IFMT == libc::S_IFLNK;
        let backing = u64::try_from(stat.st_size).ok()?;
        if !is_link || stat.st_nlink > 1 || link_target_len(backing).is_some() {
            return None;
        }
        LongLink::parse(&held.read_link().ok()?).map(|long| long.id().to_owned())
    }

    /// Removes the file of a long target. What cannot be removed now, `fsck` collects.
    pub(super) fn remove_long_link(&self, id: &str) {
        let removed = self.long_links().and_then(|dir| Ok(beneath::remove(dir, &file_of(id)?)?));
        if let Err(error) = removed {
            log::warn!("the target file of a removed symbolic link stays behind: {error}");
        }
    }

    /// Writes the file of a long target, and durably: a sync of whatever directory the link is in
    /// then needs to cover the link alone. Until the link is made a crash leaves a file that `fsck`
    /// collects. Such targets are rare enough for three syncs each.
    fn write_long_link(&self, long: &LongLink, encoded: &str) -> Result<()> {
        let (dir, mode) = (self.long_links()?, Mode::RUSR | Mode::WUSR);
        let file = beneath::create_file(&dir, &file_of(long.id())?, mode)?;
        let written = own_file::write_all(file.as_fd(), encoded.as_bytes())
            .and_then(|()| fdatasync(&file))
            .and_then(|()| fsync(&dir))
            .and_then(|()| fsync(self.tree.meta()));
        written.map_err(|error| {
            self.remove_long_link(long.id());
            error.into()
        })
    }

    fn read_long_link(&self, long: &LongLink) -> Result<Vec<u8>> {
        let limit = (2 * TARGET_MAX, "symbolic link");
        let encoded = own_file::read(self.long_links()?, &file_of(long.id())?, limit)?;
        encoded.ok_or(VolumeError::Io(Errno::NOENT))
    }

    fn long_links(&self) -> Result<OwnedFd> {
        let meta = self.tree.meta();
        match beneath::open_dir(meta, LONG_LINKS) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        match beneath::make_dir(meta, LONG_LINKS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(beneath::open_dir(meta, LONG_LINKS)?)
    }

    /// Writes the sidecar that `name` needs; true if it was not there before.
    pub(super) fn prepare_sidecar(&self, dir: &Dir, name: &EntryName) -> Result<bool> {
        let Some(sidecar) = &name.sidecar else { return Ok(false) };
        if self.entry_exists(dir, &name.entry)? {
            return Ok(false);
        }
        names::write_sidecar(dir, sidecar)?;
        self.tree.unsynced.add(dir.ino(), &sidecar.name);
        Ok(true)
    }

    /// Removes the sidecar of a name that is gone.
    pub(super) fn drop_sidecar(&self, dir: &Dir, name: &EntryName) {
        let Some(sidecar) = &name.sidecar else { return };
        if let Err(error) = beneath::remove(dir, &sidecar.name) {
            log::warn!("the sidecar of a removed long name stays behind: {error}");
        }
    }
}

/// The name of the file of a long target, which the text of a link gives.
fn file_of(id: &str) -> Result<BackingName> {
    BackingName::new(id.as_bytes()).ok_or(VolumeError::Tampered("symbolic link"))
}
