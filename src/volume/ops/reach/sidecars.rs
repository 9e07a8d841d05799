//! The files that hold long names, which come and go with the entries that need them.
//!
//! *Crash*: a sidecar is durable before its entry gets the name, whether that is made, renamed or
//! linked, since the backing filesystem may commit the entry at any moment after, and the contents of
//! a file that nobody synced much later: without its sidecar an entry has a name that nobody can
//! read. A crash in between leaves a sidecar without an entry, which the next one of that name writes
//! over and `fsck` removes. A sync of the sidecar takes its own entry along in every filesystem with
//! a journal, and what the directory is in has its names by then (`sync_for_sidecar`). A sidecar is
//! removed after the entry is gone.
//!
//! Names this long (about 175 bytes) are rare enough for one sync each; where many are made at a
//! time, the journal of the backing filesystem takes their syncs together. Short names cost nothing.

use std::sync::Arc;

use rustix::io::Errno;

use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::engine::Volume;
use crate::volume::model::error::Result;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::names::{self, EntryName, Sidecar};

impl Volume {
    /// Writes the sidecar that `name` needs, durably; true if its entry is not there yet. Whoever
    /// prepares it without a claim to the directory follows with [`Self::keep_sidecar`].
    pub(in crate::volume) fn prepare_sidecar(&self, dir: &Dir, name: &EntryName) -> Result<bool> {
        let Some(sidecar) = &name.sidecar else { return Ok(false) };
        if self.entry_exists(dir, &name.entry)? {
            return Ok(false);
        }
        names::write_sidecar(dir, sidecar).inspect_err(|_| self.drop_sidecar(dir, name))?;
        Ok(true)
    }

    /// Writes it again if a removal of the name took it away after it was prepared. Locks: the caller
    /// claims the directory, and makes the entry before it gives that back.
    pub(in crate::volume) fn keep_sidecar(&self, dir: &Dir, name: &EntryName) -> Result<()> {
        match &name.sidecar {
            Some(sidecar) if !is_good(dir, &name.entry, sidecar) => {
                names::write_sidecar(dir, sidecar)
            }
            _ => Ok(()),
        }
    }

    /// Removes the sidecar of a name that is gone, or was not made. The sidecar stays if somebody else
    /// has made the name meanwhile, or a call that failed has made it all the same. Locks: the caller
    /// claims the directory.
    pub(in crate::volume) fn drop_sidecar(&self, dir: &Dir, name: &EntryName) {
        let Some(sidecar) = &name.sidecar else { return };
        if self.entry_exists(dir, &name.entry).unwrap_or(true) {
            return;
        }
        if let Err(error) = beneath::remove(dir, &sidecar.name) {
            log::warn!("the sidecar of a removed long name stays behind: {error}");
        }
    }

    /// Writes the sidecar of an entry again if it does not say the name that the entry was found by: it
    /// was lost in a crash of an older build, or changed from outside. Locks: takes the directory's, if
    /// there is anything to do.
    pub(in crate::volume) fn heal_sidecar(&self, dir: &Arc<Dir>, name: &EntryName) {
        let Some(sidecar) = &name.sidecar else { return };
        if self.tree.options.read_only || is_good(dir, &name.entry, sidecar) {
            return;
        }
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        if !self.entry_exists(dir, &name.entry).unwrap_or(false) {
            return;
        }
        match names::rewrite_sidecar(dir, sidecar) {
            Ok(()) => log::warn!("a long name was lost, and is written down again"),
            Err(error) => log::warn!("a lost long name could not be written down again: {error}"),
        }
    }

    /// True if the backing directory has this entry.
    pub(in crate::volume) fn entry_exists(&self, dir: &Dir, entry: &BackingName) -> Result<bool> {
        match beneath::stat(dir, entry) {
            // What is mounted there is an entry as well.
            Ok(_) | Err(Errno::XDEV) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_good(dir: &Dir, entry: &BackingName, sidecar: &Sidecar) -> bool {
    names::read_sidecar(dir, entry).is_some_and(|text| text == sidecar.contents.as_bytes())
}
