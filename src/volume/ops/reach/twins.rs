//! Which of two directories with one id counts.

use std::os::fd::AsFd;

use crate::id::DirId;
use crate::volume::backing::beneath;
use crate::volume::engine::Volume;
use crate::volume::model::misplaced::Misplaced;
use crate::volume::namespace::descriptor::dir_copies;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::inode::{ROOT, Whereabouts};
use crate::volume::namespace::twins::Claim;

impl Volume {
    /// The directory that was opened in its place, as it counts beside others with its id. Locks:
    /// takes none that it keeps.
    pub(in crate::volume) fn only_twin(&self, dir: Dir) -> Dir {
        let Ok(found) = dir.descriptor() else { return dir };
        let (id, claim) = (found.dir, Claim { ino: dir.ino(), sequence: found.sequence });
        self.tree.twins.sweep(self.tree.inodes.count(), |ino| self.tree.inodes.knows(ino));
        let Some(other) = self.tree.twins.claim(id, claim) else { return dir };
        if self.has_id(other.ino, id) && other.sequence >= claim.sequence {
            return dir.refused(Misplaced::Twin);
        }
        self.tree.twins.hand_over(id, claim);
        // The other one, and what is below it, is looked at again.
        self.tree.dirs.clear();
        dir
    }

    /// True if the kernel knows `ino`, and its names still lead to a directory that claims this id.
    /// Does not ask whether that is in its place: it was when it was opened.
    fn has_id(&self, ino: u64, id: DirId) -> bool {
        let mut names = Vec::new();
        let mut at = ino;
        let mut above = loop {
            let Some(Whereabouts::Entry(link)) = self.tree.inodes.whereabouts(at) else {
                return false;
            };
            at = link.parent;
            names.push(link.name);
            if names.len() > self.tree.inodes.count() {
                return false;
            }
            let open = match self.tree.dirs.find(at) {
                Some(dir) => beneath::reopen_dir(&*dir),
                None if at == ROOT => beneath::reopen_dir(self.tree.root()),
                None => continue,
            };
            match open {
                Ok(open) => break open,
                Err(_) => return false,
            }
        };
        for name in names.iter().rev() {
            match beneath::open_dir(above.as_fd(), name) {
                Ok(below) => above = below,
                Err(_) => return false,
            }
        }
        let same =
            rustix::fs::fstat(&above).is_ok_and(|stat| self.tree.inodes.shown(stat.st_ino) == ino);
        same && dir_copies(&above).iter().any(|copy| copy.dir == id)
    }
}
