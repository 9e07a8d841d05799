//! What a volume writes down of its sessions: the record in the vault, and the anchor out of reach
//! of whoever writes to the vault (FORMAT section 12).
//!
//! **Order.** Always the record before the anchor. At a mount: sync of the filesystem, record
//! "open", anchor "open", first write. At an unmount: everything is synced, record "closed", anchor
//! "closed". A crash between the two leaves a record that is one step ahead of the anchor, which
//! the next session takes up; the other order would look like a rollback.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::anchor::{AnchorStore, Standing};
use super::state_file::StateFile;
use super::state_record::{self, Begin, Freshness};
use crate::envelope::{
    Counted, Cursor, Intents, SessionWord, StateRecord, Unrecovered, VolumeFeatures, VolumeKeys,
};
use crate::id::{FileId, KeyId};
use crate::keystore::VolumeAnchor;
use crate::volume::content::Announcements;
use crate::volume::model::error::{Result, VolumeError};

/// What was found in a vault, and the session that follows.
pub(in crate::volume) struct Found {
    /// How fresh the record in the vault is.
    pub(in crate::volume) freshness: Freshness,
    /// The record of the session that begins.
    pub(in crate::volume) record: StateRecord,
    /// What the anchor remembered.
    pub(in crate::volume) anchor: Option<VolumeAnchor>,
}

impl Found {
    /// Looks at a vault; changes nothing.
    ///
    /// `counted`: what the JSON file of a volume without a record says. It is believed only if no
    /// anchor knows the volume.
    ///
    /// # Errors
    /// `Newer`; those of the backing filesystem and of the keystore.
    pub(in crate::volume) fn look(
        meta: impl AsFd,
        keys: &VolumeKeys,
        anchor_store: &AnchorStore,
        counted: Option<Counted>,
        begin: Begin,
    ) -> Result<Self> {
        let found = StateFile::read(meta, keys)?;
        let anchor = anchor_store.load(keys)?;
        let mut record = found.map(|(record, damaged)| {
            let closing =
                damaged.then(|| state_record::closing(&record, anchor.as_ref())).flatten();
            closing.unwrap_or(record)
        });
        if let Some(counted) = counted.filter(|_| anchor.is_none()) {
            let old = counted.record();
            match &mut record {
                // An upgrade was interrupted, and an older build may have run since.
                Some(record) if record.open && record.words.len() <= 1 => {
                    record.unrecovered.splice(0..0, old.unrecovered);
                }
                // A file that anybody can write does not make an authentic record old again.
                Some(_) => {}
                None => record = Some(old),
            }
        }
        let freshness = state_record::compare(record.as_ref(), anchor.as_ref());
        let record = state_record::next(record, anchor.as_ref(), begin);
        Ok(Self { freshness, record, anchor })
    }

    /// What a person should know of it.
    pub(in crate::volume) fn notice(&self) -> Option<&'static str> {
        let excuses = self.record.unrecovered.iter().any(|crash| !crash.withheld);
        match self.freshness {
            Freshness::Newer if excuses => Some(NEWER_AND_OPEN),
            Freshness::FirstUse if excuses => Some(FIRST_AND_OPEN),
            other => other.message(),
        }
    }
}

/// Nobody here knows whether that session ended well later: whoever writes to the vault chooses which of
/// its records is shown.
const NEWER_AND_OPEN: &str = "the vault was used elsewhere since it was last mounted here, and was not \
                              closed there: what its record says of that session is believed; if it was \
                              closed well where it was used, somebody put an older record back; if \
                              this is a backup, unmount it now, restore it again and mount it with --restored";
const FIRST_AND_OPEN: &str = "the vault is mounted here for the first time, and was not closed where it was \
                              used: what its record says of that session is believed; if this is a backup \
                              that was made while it was mounted, unmount it now, restore it again and \
                              mount it with --restored";

/// What recovery could not mend of a crash.
pub(in crate::volume) struct Remainder {
    /// The session.
    pub(in crate::volume) word: SessionWord,
    /// The files that could not be looked at.
    pub(in crate::volume) files: Intents,
    /// There are others, of which the size may be wrong.
    pub(in crate::volume) sizes: bool,
}

/// The open session, written down.
pub(in crate::volume) struct Ledger {
    file: StateFile,
    keys: VolumeKeys,
    anchor_store: AnchorStore,
    inner: Mutex<Inner>,
    written: Condvar,
    generation: AtomicU64,
}

struct Inner {
    /// What is durable.
    record: StateRecord,
    anchor: VolumeAnchor,
    /// Files that wait for their announcement.
    wanted: Vec<FileId>,
    /// Somebody is writing the record, without the lock.
    writing: bool,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("word", &self.lock().record.word).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the session durably: record, then anchor.
    ///
    /// # Errors
    /// `Unanchored` when nothing outside the vault can remember it; those of the backing
    /// filesystem.
    pub(in crate::volume) fn begin(
        meta: impl AsFd,
        keys: VolumeKeys,
        anchor_store: AnchorStore,
        found: Found,
        unanchored: bool,
    ) -> Result<Self> {
        let file = StateFile::begin(meta, &found.record, &keys)?;
        let anchor = state_record::anchored(&found.record, found.anchor.as_ref(), found.freshness);
        let anchor = match anchor_store.store(&anchor, &keys, Standing::Begins) {
            Err(VolumeError::Unanchored(why)) if unanchored => {
                log::warn!("nothing outside the vault remembers this session: {why}");
                anchor
            }
            stored => stored?,
        };
        let inner = Inner { record: found.record, anchor, wanted: Vec::new(), writing: false };
        Ok(Self {
            file,
            keys,
            anchor_store,
            inner: Mutex::new(inner),
            written: Condvar::new(),
            generation: AtomicU64::new(1),
        })
    }

    /// The first record of a new volume, and its anchor.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the keystore.
    pub(in crate::volume) fn found(
        meta: impl AsFd,
        keys: &VolumeKeys,
        anchor_store: &AnchorStore,
    ) -> Result<()> {
        let record = StateRecord { words: vec![SessionWord::NONE], ..StateRecord::default() };
        StateFile::begin(meta, &record, keys)?;
        let anchor = state_record::anchored(&record, None, Freshness::Same);
        let anchor = VolumeAnchor { features: VolumeFeatures::ALL.bits(), ..anchor };
        match anchor_store.store(&anchor, keys, Standing::Begins) {
            // With keys from elsewhere, the machine that mounts the volume first remembers it.
            Err(VolumeError::Unanchored(_)) => Ok(()),
            stored => stored.map(drop),
        }
    }

    /// Crashes that are not mended yet.
    pub(in crate::volume) fn unrecovered(&self) -> Vec<Unrecovered> {
        self.lock().record.unrecovered.clone()
    }

    /// How far the recovery of one large file is.
    pub(in crate::volume) fn cursor(&self) -> Option<Cursor> {
        self.lock().record.cursor
    }

    /// Notes durably how far the recovery of one large file is.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn set_cursor(&self, cursor: Cursor) -> Result<()> {
        self.change(|record| record.cursor = Some(cursor))
    }

    /// All files were looked through for these crashes, and that is durable, except for the remainder of
    /// each: `waiting` are the keys that it waits for, if they are known.
    ///
    /// Record, then anchor: from here on a record from before it is an older one. A crash between the
    /// two leaves a record that is one step ahead.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn recovered(
        &self,
        remainders: &[Remainder],
        waiting: Option<&[KeyId]>,
    ) -> Result<()> {
        self.change(|record| {
            record.cursor = None;
            record.unrecovered.retain_mut(|crash| {
                let found = remainders.iter().find(|one| one.word == crash.word);
                let Some(remainder) = found else { return true };
                crash.intents.clone_from(&remainder.files);
                crash.listed = true;
                crash.waiting = waiting.map(<[KeyId]>::to_vec);
                remainder.sizes || !remainder.files.is_empty()
            });
        })?;
        let reached = self.lock().record.sequence;
        if let Err(error) = self.change_anchor(|anchor| anchor.sequence = reached) {
            log::warn!("the end of the recovery is not remembered outside the vault: {error}");
        }
        Ok(())
    }

    /// Begins a new generation of announcements, if the one before was dropped.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn turn(&self) -> Result<bool> {
        {
            let inner = self.lock();
            if !inner.record.previous.is_empty() || inner.record.current.is_empty() {
                return Ok(false);
            }
        }
        let inner = self.quiet();
        let (inner, written) =
            self.write(inner, |record| record.previous = std::mem::take(&mut record.current));
        written?;
        // Under the same lock, so that whoever announces from here on does so in the new generation.
        self.generation.fetch_add(1, Ordering::AcqRel);
        drop(inner);
        Ok(true)
    }

    /// True if announcements of an older generation are still kept.
    pub(in crate::volume) fn has_previous(&self) -> bool {
        !self.lock().record.previous.is_empty()
    }

    /// Forgets the announcements of the generation before: everything that they were for is
    /// durable. If this is lost in a crash, more is excused than need be.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn drop_previous(&self) -> Result<()> {
        self.change(|record| record.previous = Intents::default())
    }

    /// What is remembered of the volume out of the vault's reach.
    pub(in crate::volume) fn anchor(&self) -> VolumeAnchor {
        self.lock().anchor.clone()
    }

    /// Changes what is remembered of the volume, durably, and notes how far its record is.
    ///
    /// # Errors
    /// `Unanchored` when nothing takes it.
    pub(in crate::volume) fn change_anchor(
        &self,
        change: impl FnOnce(&mut VolumeAnchor),
    ) -> Result<()> {
        let mut inner = self.lock();
        let mut anchor = inner.anchor.clone();
        change(&mut anchor);
        if anchor != inner.anchor {
            anchor.sequence = inner.record.sequence;
            let standing = Standing::Follows(&inner.record.words);
            inner.anchor = self.anchor_store.store(&anchor, &self.keys, standing)?;
        }
        Ok(())
    }

    /// The volume has these features, for good.
    ///
    /// # Errors
    /// As [`Self::change_anchor`].
    pub(in crate::volume) fn add_features(&self, features: VolumeFeatures) -> Result<()> {
        self.change_anchor(|anchor| {
            anchor.features = VolumeFeatures::from_bits(anchor.features).with(features).bits();
        })
    }

    /// Ends the session: everything is durable.
    ///
    /// # Errors
    /// Those of the backing filesystem; the session is then open, as after a crash.
    pub(in crate::volume) fn end(&self) -> Result<()> {
        self.change(state_record::close)?;
        // A record that is closed while its anchor is open is a session that ended cleanly.
        if let Err(error) = self.change_anchor(|anchor| anchor.closed = true) {
            log::warn!("the end of the session is not remembered outside the vault: {error}");
        }
        Ok(())
    }

    /// Changes the record durably, with what waits to be announced.
    fn change(&self, change: impl FnOnce(&mut StateRecord)) -> Result<()> {
        self.write(self.quiet(), change).1
    }

    /// Waits until nobody writes the record.
    fn quiet(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.lock();
        self.written.wait_while(&mut inner, |inner| inner.writing);
        inner
    }

    /// Writes the record while the lock is free for others who want to announce.
    fn write<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        change: impl FnOnce(&mut StateRecord),
    ) -> (MutexGuard<'a, Inner>, Result<()>) {
        inner.writing = true;
        let mut record = inner.record.clone();
        for file in std::mem::take(&mut inner.wanted) {
            record.current.add(file);
        }
        change(&mut record);
        record.cursor = record.valid_cursor();
        record.sequence += 1;
        drop(inner);
        let written = self.file.write(&record, &self.keys);
        let mut inner = self.lock();
        inner.writing = false;
        if written.is_ok() {
            inner.record = record;
        }
        self.written.notify_all();
        (inner, written)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Announcements for Ledger {
    fn announce(&self, file: FileId) -> Result<u64> {
        let mut inner = self.lock();
        loop {
            // Read under the lock: a turn of the generations that comes later moves the entry.
            let generation = self.generation();
            if inner.record.current.covers(file) {
                return Ok(generation);
            }
            if !inner.wanted.contains(&file) {
                inner.wanted.push(file);
            }
            if inner.writing {
                // Whoever writes next takes this one along.
                self.written.wait(&mut inner);
            } else {
                let (after, written) = self.write(inner, |_| {});
                written?;
                inner = after;
            }
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
