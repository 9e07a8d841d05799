//! Keeps up to date what the keystore's own file remembers of the audit log.

use std::time::{Duration, Instant, SystemTime};

use crate::keystore::engine::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;

impl Keystore {
    /// Learns what the keystore's own file says about the log just now.
    pub(in crate::keystore) fn learn_audit(&self) -> Result<(), KeystoreError> {
        let note = self.read(|reader| reader.meta())?.audit;
        self.inner.audit.learn(&note);
        Ok(())
    }

    /// Notes a position of the log in the keystore's own file, unless a later one is noted, and which
    /// positions the log was found without.
    pub(in crate::keystore) fn note_audit(
        &self,
        position: Position,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.learn_audit()?;
        if self.inner.audit.is_saved(position) {
            return Ok(());
        }
        // Another process may have noted a position that this one has not looked for.
        self.inner.audit.compare(now)?;
        // Every write notes the newest position, which includes this one.
        self.write(|_| Ok(()))
    }

    /// Notes a position that was signed since, or that records were lost, at most once a minute: every
    /// process with the keystore looks at all rows after a change.
    pub(super) fn note_audit_if_due(&self) {
        let due = self.lock().noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        let Some(position) = self.inner.audit.worth_noting().filter(|_| due) else { return };
        self.lock().noted = Some(Instant::now());
        if let Err(error) = self.note_audit(position, self.caller.time()) {
            log::warn!("the keystore does not learn where its audit log is: {error}");
        }
    }
}

const NOTE_EVERY: Duration = Duration::from_secs(60);
