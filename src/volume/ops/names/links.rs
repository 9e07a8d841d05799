//! Symbolic links and hard links.
//!
//! A link's target is encrypted under the keys of the volume's *root* directory, so that a link
//! may be renamed and hard linked anywhere. One that is too long for a backing link is kept in a
//! file of the volume's own directory: see [`LongLink`].

use rustix::io::Errno;

use super::create::Node;
use crate::crypto::random;
use crate::envelope::{LINK_TEXT_MAX, LongLink, TARGET_MAX};
use crate::volume::backing::beneath;
use crate::volume::engine::Volume;
use crate::volume::model::attr::Attr;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::{Link, ROOT};
use crate::volume::namespace::names::EntryName;

/// A length of a link's text that every filesystem takes: if one refuses it, there is another reason.
const TEXT_EVERYWHERE: usize = 255;

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
        if encoded.len() <= LINK_TEXT_MAX {
            match self.make(parent, name, &Node::Link(&encoded), caller) {
                // Not every filesystem takes as much: XFS stops at 1023 bytes.
                Err(VolumeError::Io(Errno::NAMETOOLONG)) if encoded.len() > TEXT_EVERYWHERE => {}
                made => return made,
            }
        }
        let long = LongLink::new(target.len(), random::id16()?);
        self.write_long_link(&long, &encoded, caller)?;
        let made = self.make(parent, name, &Node::Link(&long.text()), caller);
        made.inspect_err(|_| {
            // The failure may have come after the link was made, or the link may be there all the same.
            if !self.may_be_linked(parent, name, &long) {
                self.remove_long_link(long.id());
            }
        })
    }

    /// False if `name` is known to be no link to this target.
    fn may_be_linked(&self, parent: u64, name: &[u8], long: &LongLink) -> bool {
        let text = self.dir(parent).and_then(|dir| {
            let name = EntryName::new(&dir, name)?;
            Ok(beneath::hold(&*dir, &name.entry)?.read_link()?)
        });
        match text {
            Ok(text) => text == long.text().as_bytes(),
            Err(VolumeError::Io(Errno::NOENT | Errno::INVAL)) => false,
            Err(_) => true,
        }
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `Tampered` if it was not made by this volume; `Io(INVAL)` for what is no link.
    pub fn read_link(&self, ino: u64) -> Result<Vec<u8>> {
        self.decode_link(self.hold(ino)?.read_link()?)
    }

    /// Gives `ino` the further name `name` in `parent`. The kernel then holds one lookup more.
    ///
    /// # Errors
    /// `Io(EXIST)`, `CrossPolicy`, `Io(MLINK)`, and as [`Volume::mkdir`].
    pub fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Result<Attr> {
        self.tree.writable()?;
        let _renaming = self.tree.renames.enter();
        let dir = self.dir(parent)?;
        let name = EntryName::new(&dir, name)?;
        self.cross_link(ino, &dir)?;
        let held = self.hold(ino)?;
        self.sync_for_sidecar(&dir, &name)?;
        self.prepare_sidecar(&dir, &name)?;
        let changing = self.tree.locks.changing(&[parent]);
        self.keep_sidecar(&dir, &name)?;
        self.tree.renames.note(ino, &[Link { parent, name: name.entry.clone() }]);
        let linked = beneath::add_name(&held, &*dir, &name.entry);
        linked.inspect_err(|_| self.drop_sidecar(&dir, &name))?;
        drop(changing);
        self.enter(&dir, &name.entry)?.ok_or(VolumeError::Stale)
    }
}
