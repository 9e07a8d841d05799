//! Finishes a rename of a directory that a crash cut short, when the directory is found.

use std::os::fd::AsFd;

use crate::envelope::{DirDescriptor, Places};
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::namespace::descriptor::write_descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::Expected;

impl Volume {
    /// Makes the directory good for the place where it is alone, after a crash cut its rename short.
    /// What cannot be done now is done the next time.
    pub(in crate::volume) fn finish_rename(&self, dir: &Dir, parent: &Dir, entry: &BackingName) {
        let (Ok(found), Expected::At(place, _)) = (dir.descriptor(), dir.expected()) else {
            return;
        };
        if self.tree.options.read_only || found.places.is_none_or(|places| places.are_one()) {
            return;
        }
        // A rename holds this from its first step to its last.
        let Some(_alone) = self.tree.descriptors.try_write() else { return };
        let _held = self.tree.locks.reading(parent.ino());
        let here = beneath::stat(parent, entry);
        if !here.is_ok_and(|stat| self.tree.same_number(&stat, dir.ino()).is_ok()) {
            return;
        }
        let written = dir.read_again().and_then(|stored| {
            let places = Some(Places::at(*place));
            let new = DirDescriptor { sequence: stored.sequence + 1, places, ..stored };
            let bytes = new.encode(dir.keys()?);
            write_descriptor(dir.as_fd(), &bytes, self.tree.locks.watch(dir.ino()))
        });
        match written {
            Ok(()) => log::info!("a rename that was cut short is complete: inode {}", dir.ino()),
            Err(error) => {
                log::warn!("inode {}: its descriptor is for two places: {error}", dir.ino())
            }
        }
    }
}
