//! The policies of directories: which key their new files get, and which they still accept.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::envelope::{DirDescriptor, Places};
use crate::id::KeyId;
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor::write_descriptor;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_cache::Concerns;
use crate::volume::namespace::dir_rules::Expected;

impl Volume {
    /// What the directory `ino` says of keys.
    ///
    /// # Errors
    /// `KeyUnusable`, `Tampered`, `Stale`.
    pub fn dir_policy(&self, ino: u64) -> Result<DirDescriptor> {
        self.dir(ino)?.descriptor().cloned()
    }

    /// Lets a file that keeps its key into a directory with another key (`CrossMode::Keep`), durably:
    /// after a crash that left the file there and the descriptor as it was, nothing could open the
    /// file.
    ///
    /// *Locks*: one at a time, so that whoever finds the key accepted finds that durable as well.
    pub(in crate::volume) fn accept_key(&self, dir: &Dir, key: KeyId) -> Result<()> {
        let _one = self.tree.accepting.lock();
        let changed = self.change_current(dir.ino(), |now| {
            self.tree.kept.fetch_add(1, Ordering::AcqRel);
            if now.accepts(key) {
                return Ok(None);
            }
            let mut new = now.clone();
            new.previous.push(key);
            Ok(Some(new))
        })?;
        // After a sync that failed, nobody knows which descriptors are durable.
        if changed || self.is_any_lost() { self.sync_everything() } else { Ok(()) }
    }

    /// Remembers, outside of the vault, what has changed of policies and of their places since the last
    /// time. *Crash order*: what is in the vault is durable first. Otherwise a crash could leave older
    /// descriptors than those that are remembered, or other directories in their places, which could
    /// not be used again. What is not remembered yet is remembered when the directory is opened again.
    pub(in crate::volume) fn save_dir_policies(&self) {
        let Some(ledger) = self.session().ledger().cloned() else { return };
        let anchor = &self.tree.anchor;
        let (policies, places) = (anchor.take_unsaved(), anchor.occupants.take_unsaved());
        if policies.is_none() && places.is_none() {
            return;
        }
        let (had_policies, had_places) = (policies.is_some(), places.is_some());
        let saved = self.sync_everything().and_then(|()| {
            ledger.change_anchor(|saved| {
                if let Some(policies) = policies {
                    saved.policies = policies;
                }
                if let Some(places) = places {
                    saved.places = anchor.occupants.still(&places);
                }
            })
        });
        if let Err(error) = saved {
            if had_policies {
                anchor.give_back();
            }
            if had_places {
                anchor.occupants.give_back();
            }
            log::warn!("policies of directories are not remembered outside the vault: {error}");
        }
    }

    /// Writes a directory's descriptor again, if `change` makes another of the one that is there;
    /// for the user the directory has not changed. Returns false if nothing had to be written.
    ///
    /// One at a time: whoever writes what was read before another wrote takes back a key that files
    /// need. *Locks*: held over calls of the KMS, but no request for contents waits for it.
    ///
    /// # Errors
    /// `FormerKeys` when it would accept more of them than it has room for; those of `change`.
    pub(in crate::volume) fn change_descriptor(
        &self,
        dir: &Dir,
        change: impl FnOnce(&DirDescriptor) -> Result<Option<DirDescriptor>>,
    ) -> Result<bool> {
        let _one = self.tree.descriptors.write();
        self.change_alone(dir, change)
    }

    /// The same of the directory `ino` as it is now. Whoever opened it before may not have heard that
    /// one above it gives a key up, and would find that key accepted.
    fn change_current(
        &self,
        ino: u64,
        change: impl FnOnce(&DirDescriptor) -> Result<Option<DirDescriptor>>,
    ) -> Result<bool> {
        let _one = self.tree.descriptors.write();
        self.change_alone(&*self.dir(ino)?, change)
    }

    /// *Locks*: the caller holds the one of the descriptors for writing.
    fn change_alone(
        &self,
        dir: &Dir,
        change: impl FnOnce(&DirDescriptor) -> Result<Option<DirDescriptor>>,
    ) -> Result<bool> {
        let stored = dir.read_again()?;
        self.keyring.check(stored.recipient.key)?;
        // It was found in its place then; by now it may be on its way to another.
        let now = dir.expected().admit(&stored, &self.tree.anchor);
        let now = now.unwrap_or_else(|_| stored.clone());
        let Some(new) = change(&now)? else { return Ok(false) };
        let mut new = dir.expected().written(new, [&stored, &now]);
        if let (None, Expected::At(place, _)) = (new.places, dir.expected()) {
            new.places = Some(Places::at(*place));
        }
        if new == stored {
            return Ok(false);
        }
        let says = |of: &DirDescriptor| (of.policy, of.inherited, of.cross, of.previous.clone());
        let concerns = match says(&new) == says(&stored) {
            true => Concerns::Itself,
            false => Concerns::AllBelow,
        };
        if concerns == Concerns::AllBelow {
            new.policy_sequence = stored.policy_sequence.max(self.tree.anchor.newest(new.dir)) + 1;
        }
        if !new.fits() {
            return Err(VolumeError::FormerKeys);
        }
        // Files are under it: a re-wrap that has already been here must not give it up.
        if new.previous.iter().any(|key| !now.previous.contains(key)) {
            self.tree.kept.fetch_add(1, Ordering::AcqRel);
        }
        new.sequence = stored.sequence + 1;
        let bytes = new.encode(dir.keys()?);
        let mut outcome = Ok(());
        self.times.keep(dir.as_fd(), dir.ino(), || {
            outcome = write_descriptor(dir.as_fd(), &bytes, self.tree.locks.watch(dir.ino()));
            Ok(())
        })?;
        self.tree.dirs.descriptor_changed(dir.ino(), concerns);
        outcome?;
        self.tree.anchor.note(&new);
        dir.says().become_of(&dir.expected().admit(&new, &self.tree.anchor).unwrap_or(new));
        Ok(true)
    }
}
