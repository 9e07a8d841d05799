//! Directories that change their place (FORMAT section 11.4).
//!
//! A descriptor is good for the place where its directory is. So before a rename it is written for
//! both places, and after it for the new one alone. *Crash order*: where the attribute and the name
//! are in one journal, the attribute can be neither ahead of the name nor behind it by more than
//! that; the copy in the file is written last, may reach the disk at any time, and counts only where
//! it was made for. Elsewhere the first writes are synced before the rename and the rename before
//! the last ones.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLockWriteGuard;
use rustix::fs::{FileType, fsync};

use crate::envelope::{DirDescriptor, DirPlace, Places};
use crate::id::DirId;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::{
    Copies, DescriptorBytes, sync_file, write_attribute, write_descriptor, write_file,
};
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_cache::Concerns;
use crate::volume::namespace::dir_rules::{Above, Expected};
use crate::volume::namespace::inode::Link;

/// The directories that a rename moves. While this lives, no other directory moves, and no policy
/// changes.
pub(in crate::volume) struct Moves<'a> {
    moves: Vec<Move>,
    /// Their inode numbers, with those that are moved as they are.
    inos: Vec<u64>,
    /// The two directories between which they move.
    between: [Arc<Dir>; 2],
    /// The rename has to be durable before the descriptors are for the new places alone.
    syncs: bool,
    _alone: RwLockWriteGuard<'a, ()>,
}

/// What a rename does to an entry: from which directory and backing name, and to which.
pub(in crate::volume) type Journey<'a> =
    (&'a Arc<Dir>, &'a BackingName, &'a Arc<Dir>, &'a BackingName);

/// One directory and its descriptor on the way.
struct Move {
    dir: Arc<Dir>,
    /// For the place where it was.
    stayed: DescriptorBytes,
    /// For both places.
    both: DescriptorBytes,
    /// For the place where it is now.
    moved: DescriptorBytes,
    /// It takes its keys along to a directory with other keys.
    own_policy: Option<DirDescriptor>,
    id: DirId,
    here: DirPlace,
    there: DirPlace,
    /// It is remembered where it is.
    known: bool,
    /// It will have a policy of its own.
    own: bool,
}

impl Volume {
    /// The directories among what goes on these journeys; `None` if there is none.
    ///
    /// What cannot be used is moved as it is: that way a directory out of its place can be put back,
    /// and it counts nowhere else.
    ///
    /// # Errors
    /// `KeyUnusable` for a directory whose descriptor cannot be written now.
    pub(in crate::volume) fn moves(&self, journeys: &[Journey<'_>]) -> Result<Option<Moves<'_>>> {
        let is_dir = |(dir, entry, ..): &Journey<'_>| {
            let stat = beneath::stat(dir, *entry);
            stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_dir())
        };
        let dirs: Vec<_> = journeys.iter().filter(|journey| is_dir(journey)).collect();
        let Some((from, _, to, _)) = dirs.first() else { return Ok(None) };
        let between = [Arc::clone(from), Arc::clone(to)];
        let alone = self.tree.descriptors.write();
        let (mut moves, mut inos) = (Vec::new(), Vec::new());
        for (from, entry, to, name) in dirs {
            // What they say of keys may have changed until the lock was ours.
            let (from, to) = (&self.dir(from.ino())?, &self.dir(to.ino())?);
            let dir = self.entry_dir(from, entry)?;
            inos.push(dir.ino());
            match dir.descriptor() {
                Ok(_) => {
                    let here = from.authority().expects(entry.bytes());
                    let mut one = Move::new(dir, here, to, name)?;
                    one.known = self.tree.anchor.occupants.at(one.here) == Some(one.id);
                    moves.push(one);
                }
                Err(VolumeError::Misplaced(_) | VolumeError::Tampered(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Moves { moves, inos, between, syncs: !self.tree.one_journal, _alone: alone }))
    }

    /// The directory under a backing name. Locks: the caller holds the one of the descriptors, so
    /// that no directory is renamed meanwhile.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the KMS.
    pub(in crate::volume) fn entry_dir(
        &self,
        parent: &Arc<Dir>,
        entry: &BackingName,
    ) -> Result<Arc<Dir>> {
        let held = beneath::hold(parent, entry)?;
        self.tree.same_device(held.found())?;
        let ino = self.tree.inodes.shown(held.found().st_ino);
        if let Some(dir) = self.tree.dirs.find(ino)
            && dir.was_found_at(parent.ino(), entry)
        {
            return Ok(dir);
        }
        let fd = held.open_dir()?;
        let copies = Copies::read(&fd);
        let expected = parent.authority().expects(entry.bytes());
        let dir = Dir::open(ino, fd, copies, expected, self.opener())?;
        dir.sound_alarm();
        let dir = self.only_twin(dir);
        Ok(Arc::new(dir.found_by(Link { parent: parent.ino(), name: entry.clone() })))
    }
}

impl Move {
    fn new(dir: Arc<Dir>, from: Expected, to: &Dir, name: &BackingName) -> Result<Self> {
        to.keys()?;
        let goes = to.authority().expects(name.bytes());
        let (Expected::At(here, _), Expected::At(there, above)) = (from, goes) else {
            return Err(VolumeError::Stale);
        };
        let keys = dir.keys()?;
        let stored = dir.read_again()?;
        let at = |descriptor: &DirDescriptor, places: Places, later: u64| {
            let sequence = descriptor.sequence + later;
            DirDescriptor { sequence, places: Some(places), ..descriptor.clone() }.encode(keys)
        };
        // It takes its keys along. If they are not those of its new directory, they are a policy of its
        // own from here on.
        let effective = dir.descriptor()?;
        let own = |descriptor: DirDescriptor| DirDescriptor {
            inherited: false,
            policy: effective.policy,
            previous: effective.previous.clone(),
            cross: effective.cross,
            policy_sequence: descriptor.policy_sequence + 1,
            ..descriptor
        };
        let here_is = |stored: DirDescriptor| match stored.inherited && !effective.inherited {
            true => own(stored),
            false => stored,
        };
        let stays = here_is(stored.clone());
        let inherits = matches!(&above, Above::Keys(keys) if keys.suits(&stored, effective));
        let moves = if stays.inherited && !inherits { own(stays.clone()) } else { stays.clone() };
        if !moves.fits() {
            return Err(VolumeError::FormerKeys);
        }
        Ok(Self {
            stayed: at(&stays, Places::at(here), 2),
            both: at(&moves, Places { from: here, to: there }, 1),
            moved: at(&moves, Places::at(there), 2),
            own: !moves.inherited,
            own_policy: (moves.inherited != stored.inherited).then_some(moves),
            id: stored.dir,
            here,
            there,
            known: false,
            dir,
        })
    }
}

impl Move {
    /// Makes what is remembered of places follow the rename.
    fn has_moved(&self, volume: &Volume) {
        let occupants = &volume.tree.anchor.occupants;
        occupants.leave(self.here, self.id);
        if self.known || self.own {
            occupants.learn(self.there, self.id);
        }
    }
}

impl Moves<'_> {
    /// True if the directory with this inode number is among them.
    pub(in crate::volume) fn include(&self, ino: u64) -> bool {
        self.inos.contains(&ino)
    }

    /// Before the rename: each descriptor is good for both places.
    ///
    /// # Errors
    /// Those of the backing filesystem; nothing has changed then.
    pub(in crate::volume) fn announce(&mut self, volume: &Volume) -> Result<()> {
        volume.tree.moved.fetch_add(1, Ordering::AcqRel);
        self.moves.iter().for_each(|one| volume.claim_place(one.there, one.id));
        for (done, one) in self.moves.iter().enumerate() {
            match volume.write_both(one) {
                Ok(journaled) => self.syncs |= !journaled,
                Err(error) => {
                    let begun = self.moves.iter().take(done + 1);
                    begun.for_each(|one| volume.write_last(one, &one.stayed));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// After a rename that failed.
    pub(in crate::volume) fn withdraw(&self, volume: &Volume) {
        self.moves.iter().for_each(|one| volume.write_last(one, &one.stayed));
    }

    /// After a rename of which it is not known whether it was done: both places stay good.
    pub(in crate::volume) fn leave(&self, volume: &Volume) {
        for one in &self.moves {
            volume.tree.dirs.descriptor_changed(one.dir.ino(), Concerns::AllBelow);
        }
    }

    /// After the rename: each descriptor is good for the new place alone.
    pub(in crate::volume) fn conclude(&self, volume: &Volume) {
        self.moves.iter().for_each(|one| one.has_moved(volume));
        if self.syncs {
            let synced = self.between.iter().try_for_each(|dir| fsync(&**dir));
            if let Err(error) = synced {
                // Good for both places, as it is.
                log::warn!("a rename of a directory is not known to be durable: {error}");
                return self.leave(volume);
            }
        }
        for one in &self.moves {
            volume.write_last(one, &one.moved);
            if let Some(own) = &one.own_policy {
                volume.tree.anchor.note(own);
            }
        }
    }
}

impl Volume {
    /// Writes the attribute alone, and returns true, if it goes to the disk with the names and in their
    /// order.
    fn write_both(&self, one: &Move) -> Result<bool> {
        let dir = one.dir.as_fd();
        if write_attribute(dir, &one.both)? && self.tree.one_journal {
            return Ok(true);
        }
        write_file(dir, &one.both, self.tree.locks.watch(one.dir.ino()))?;
        sync_file(dir)?;
        fsync(dir)?;
        Ok(false)
    }

    fn write_last(&self, one: &Move, bytes: &DescriptorBytes) {
        let watch = self.tree.locks.watch(one.dir.ino());
        if let Err(error) = write_descriptor(one.dir.as_fd(), bytes, watch) {
            log::warn!("inode {}: its descriptor is for two places: {error}", one.dir.ino());
        }
        self.tree.dirs.descriptor_changed(one.dir.ino(), Concerns::AllBelow);
    }
}
