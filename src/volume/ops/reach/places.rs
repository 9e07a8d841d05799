//! Places of directories that are remembered outside of the vault, kept true as directories come and go.

use crate::envelope::DirPlace;
use crate::id::DirId;
use crate::volume::engine::Volume;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::{Above, Expected};
use crate::volume::namespace::inode::ROOT;
use crate::volume::namespace::occupants::MOST;

impl Volume {
    /// Before the mount brings the directory `dir` to a place, takes another directory there out of the
    /// anchor, durably. If the change fails, that one is learnt again when it is opened.
    ///
    /// If nothing outside the vault can be written, the anchor goes on naming the other one: after a
    /// crash the directory may have to be adopted.
    pub(in crate::volume) fn claim_place(&self, place: DirPlace, dir: DirId) {
        let occupants = &self.tree.anchor.occupants;
        if !occupants.vacate_for(place, dir) {
            return;
        }
        let Some(ledger) = self.session().ledger().cloned() else { return };
        let released = ledger.change_anchor(|anchor| {
            anchor.places.retain(|at| at.place != place || at.directory == dir);
            if !anchor.places.iter().any(|at| at.place == place) {
                occupants.note_released(place);
            }
        });
        if let Err(error) = released {
            occupants.note_saved(place);
            log::warn!("a place is remembered outside the vault as another directory's: {error}");
        }
    }

    /// Notes where a directory with a policy of its own is, and where those above it are: an older one
    /// of those could bring an older one along that inherits. This covers directories that are held
    /// open, as they are when `dir` was just opened.
    pub(in crate::volume) fn remember_place(&self, dir: &Dir) {
        if dir.descriptor().is_ok_and(|found| found.inherited) {
            return;
        }
        let mut above = self.learn_place(dir);
        for _ in 0..MOST {
            let open = above.filter(|ino| *ino != ROOT).and_then(|ino| self.tree.dirs.find(ino));
            let Some(open) = open else { return };
            above = self.learn_place(&open);
        }
    }

    /// Notes where a directory is if it still is there, and returns the one above. Locks: that one's, for
    /// a moment: no rename or removal is half way done then.
    fn learn_place(&self, dir: &Dir) -> Option<u64> {
        let (link, found) = (dir.link()?, dir.descriptor().ok()?);
        let Expected::At(place, Above::Keys(_)) = dir.expected() else { return None };
        let _still = self.tree.locks.reading(link.parent);
        if !self.tree.inodes.has_link(dir.ino(), link) {
            return None;
        }
        self.tree.anchor.occupants.learn(*place, found.dir);
        Some(link.parent)
    }
}
