//! A rename of a directory that a crash cut short is completed when the directory is found.

use std::os::fd::AsFd;

use crate::envelope::{DirDescriptor, Places};
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::namespace::descriptor::write_descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::Expected;

impl Volume {
    /// A rename that a crash cut short: the directory is good for the place where it is alone.
    /// What cannot be done now is done the next time.
    pub(in crate::volume) fn settle_places(&self, dir: &Dir, parent: &Dir, entry: &BackingName) {
        let (Ok(found), Expected::At(place, _)) = (dir.descriptor(), dir.expected()) else {
            return;
        };
        if self.tree.options.read_only || found.places.is_none_or(|places| places.are_settled()) {
            return;
        }
        // A rename holds this from its first step to its last.
        let Ok(_alone) = self.tree.descriptors.try_write() else { return };
        let _held = self.tree.locks.reading(parent.ino());
        let here = beneath::stat(parent, entry);
        if !here.is_ok_and(|stat| self.tree.same_number(&stat, dir.ino()).is_ok()) {
            return;
        }
        let settled = dir.read_again().and_then(|stored| {
            let places = Some(Places::at(*place));
            let settled = DirDescriptor { sequence: stored.sequence + 1, places, ..stored };
            let bytes = settled.encode(dir.keys()?);
            write_descriptor(dir.as_fd(), &bytes)
        });
        match settled {
            Ok(()) => log::info!("a rename that was cut short is complete: inode {}", dir.ino()),
            Err(error) => {
                log::warn!("inode {}: its descriptor is for two places: {error}", dir.ino())
            }
        }
    }
}
