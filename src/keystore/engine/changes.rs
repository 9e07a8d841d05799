//! Notices what other processes change, and drops what this one remembers of it.

use std::time::{Duration, Instant};

use crate::keystore::engine::keystore::{Keystore, Opened, RowSet};
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::file;

impl Keystore {
    /// Notices what other processes changed since the last call. If there was a change, drops the
    /// cache, checks the rows as at open, and returns `true`. Takes microseconds when nothing was
    /// changed.
    /// Errors: `Locked`, `Database`. Rows that were tampered with are no error here: from then on
    /// every key refuses with `RowSetTampered`.
    pub fn poll_changes(&self) -> Result<bool, KeystoreError> {
        self.note_audit_if_due();
        self.note_refused_pins();
        self.look()
    }

    /// Looks at the file, unless that was done within [`FRESH`]. After this, what is in memory is no
    /// older than that: who cannot look uses nothing of it.
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn look_if_due(&self) -> Result<(), KeystoreError> {
        if self.inner.looked.is_within(FRESH) { Ok(()) } else { self.look().map(drop) }
    }

    /// Waits until no process takes the material for current that was so before the change which was
    /// just made: whoever looks for what it has wrapped, and then destroys it, misses nothing.
    pub(in crate::keystore) fn outwait_caches(&self) {
        std::thread::sleep(2 * FRESH);
    }

    fn look(&self) -> Result<bool, KeystoreError> {
        let mut opened = self.lock();
        let before = Instant::now();
        let version = opened.store.version()?;
        if version == opened.version {
            self.inner.looked.note(before);
            return Ok(false);
        }
        self.inner.cache.clear();
        if opened.rows != RowSet::Unchecked {
            self.note_rows(&mut opened)?;
        }
        // Last: what failed above is tried again at the next call.
        opened.version = version;
        self.inner.looked.note(before);
        Ok(true)
    }

    /// Checks that the file still has its name. A file that was moved away or replaced would stay as it
    /// was for ever: whoever disables a key does it in the file of that name. Leases
    /// are taken on that file too.
    /// Errors: `Missing`, `Io`.
    pub fn check_path(&self) -> Result<(), KeystoreError> {
        let path = &self.inner.name;
        let found = file::identity(path)?;
        if found == self.inner.identity {
            return Ok(());
        }
        self.inner.leases.follow(path, found);
        let other = std::io::Error::other("another file has its name now: open that one");
        Err(file::io_error(path, "go on with", other))
    }

    /// Drops, and wipes, all keys and rules in memory: the next use of one reads the file again.
    pub fn forget_cached(&self) {
        let _store = self.lock();
        self.inner.cache.clear();
    }

    /// A count that goes up whenever something may have changed, by this process or, once it was
    /// noticed, by another: what was derived from keys, policies and grants is stale then.
    pub fn changes(&self) -> u64 {
        self.inner.cache.changes()
    }

    /// Notes whether the rows are those that were written, and not an older state of them.
    pub(super) fn note_rows(&self, opened: &mut Opened) -> Result<(), KeystoreError> {
        let found = match self.checked_generation(opened) {
            Err(KeystoreError::RowSetTampered | KeystoreError::Tampered { .. }) => None,
            generation => Some(generation?),
        };
        match found.filter(|generation| *generation >= opened.generation) {
            Some(generation) => {
                (opened.rows, opened.generation) = (RowSet::Good, generation);
            }
            None => {
                log::error!("something else than kmsfs changed the keystore: its keys refuse");
                opened.rows = RowSet::Bad;
            }
        }
        Ok(())
    }

    pub(super) fn checked_generation(&self, opened: &mut Opened) -> Result<u64, KeystoreError> {
        self.read_locked(opened, |reader| {
            reader.check_set()?;
            let meta = reader.meta()?;
            self.inner.audit.learn(&meta.audit);
            Ok(meta.generation)
        })
    }
}

/// How long nobody looks again before something is wrapped. A look takes microseconds: too long for
/// every file that is made.
const FRESH: Duration = Duration::from_millis(10);
