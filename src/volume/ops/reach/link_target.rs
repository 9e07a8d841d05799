//! The targets of symbolic links, and the files of those that are too long for a backing link.
//!
//! Removing a link leaves the file of its target. Another link may name that file: a copy that somebody
//! put into the vault, or the original beside a copy that is removed. Only a look at all links tells:
//! `fsck` does that, and collects the files that no link names.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, Stat, fchown, fdatasync, fsync};
use rustix::io::Errno;

use crate::envelope::{LongLink, TARGET_MAX};
use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::own_file;
use crate::volume::engine::Volume;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::ROOT;

/// In the volume's own directory: the files of long targets.
const LONG_LINKS: Name<'static> = Name::literal("links");

impl Volume {
    /// The target that the text of a backing link stands for.
    pub(in crate::volume) fn decode_link(&self, text: Vec<u8>) -> Result<Vec<u8>> {
        let root = self.dir(ROOT)?;
        let encoded = match LongLink::parse(&text) {
            Some(long) => self.read_long_link(&long)?,
            None => text,
        };
        Ok(root.keys()?.decode_link(&encoded)?)
    }

    /// The length of the target of a link in the long form.
    pub(in crate::volume) fn long_link_length(&self, ino: u64, stat: &Stat) -> Result<u64> {
        let text = self.hold(ino)?.read_link()?;
        let backing = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(LongLink::parse(&text).map_or(backing, |long| long.length() as u64))
    }

    /// The files of long targets that no link names, given those that links do name.
    pub(in crate::volume) fn unused_targets(
        &self,
        used: &HashSet<String>,
    ) -> Result<Vec<BackingName>> {
        let dir = match beneath::open_dir(self.tree.meta(), LONG_LINKS) {
            // Something else in its place keeps no targets.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = raw_names(dir)?;
        names.retain(|name| std::str::from_utf8(name.bytes()).is_ok_and(|id| !used.contains(id)));
        Ok(names)
    }

    /// Removes the file of a long target that no link names. `fsck` collects what cannot be removed
    /// now.
    pub(in crate::volume) fn remove_long_link(&self, id: &str) {
        let dir = beneath::open_dir(self.tree.meta(), LONG_LINKS).map_err(VolumeError::from);
        let removed = dir.and_then(|dir| Ok(beneath::remove(dir, &file_of(id)?)?));
        if let Err(error) = removed {
            log::warn!("the target file of a removed symbolic link stays behind: {error}");
        }
    }

    /// Writes the file of a long target durably: a sync of the link's directory then need cover the
    /// link alone. It belongs to whoever the link belongs to. A crash before the link is made leaves a
    /// file that `fsck` collects. Such targets are rare enough for three syncs each.
    pub(in crate::volume) fn write_long_link(
        &self,
        long: &LongLink,
        encoded: &str,
        caller: Caller,
    ) -> Result<()> {
        let (dir, mode) = (self.make_long_links()?, Mode::RUSR | Mode::WUSR);
        let file = beneath::create_file(&dir, &file_of(long.id())?, mode)?;
        let (uid, _) = self.tree.new_owner(caller, true);
        let written = fchown(&file, uid, None)
            .and_then(|()| own_file::write_all(file.as_fd(), encoded.as_bytes()))
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
        let dir = beneath::open_dir(self.tree.meta(), LONG_LINKS)?;
        let encoded = own_file::read(dir, &file_of(long.id())?, limit)?;
        encoded.ok_or(VolumeError::Io(Errno::NOENT))
    }

    /// The directory of long targets. The first one makes it.
    fn make_long_links(&self) -> Result<OwnedFd> {
        let meta = self.tree.meta();
        match beneath::open_dir(meta, LONG_LINKS) {
            Err(Errno::NOENT) => {}
            // Somebody put something else in its place.
            Err(Errno::LOOP | Errno::NOTDIR) => own_file::remove(meta, LONG_LINKS)?,
            other => return Ok(other?),
        }
        match beneath::make_dir(meta, LONG_LINKS, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(beneath::open_dir(meta, LONG_LINKS)?)
    }
}

/// The name of the file that holds the target of a link with this text, if one does.
pub(in crate::volume) fn target_file(text: &[u8]) -> Option<String> {
    LongLink::parse(text).map(|long| long.id().to_owned())
}

/// The name of the file of a long target, which the text of a link gives.
fn file_of(id: &str) -> Result<BackingName> {
    BackingName::new(id.as_bytes()).ok_or(VolumeError::Tampered("symbolic link"))
}
