//! The audit log: every operation, who asked for it and what came of it.
//!
//! It is a file of its own beside the keystore, `<keystore>.audit`, that every process with the
//! keystore appends to. Each record is sealed under a key derived from the root key, bound to its
//! number, and chained to the one before by a hash over what it says (`chain`), so that an export
//! can be checked by somebody who has no key. Signed places of the chain (`checkpoint`) tell
//! them that it is the keystore's. The keystore's own file notes a recent place, and each process
//! knows the record that it wrote last (`known`): a log that was cut, replaced or removed is noticed
//! by the next append (`tail`).
//!
//! What is written when: `writer`. What it can and cannot prove: docs/AUDIT.md.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

mod chain;
mod checkpoint;
mod event;
mod export;
mod file;
mod filter;
mod keys;
mod known;
pub(in crate::keystore) mod last_use;
mod log;
pub(in crate::keystore) mod opens;
mod prune;
mod tail;
mod verify;
mod walk;
mod writer;

pub use crate::keystore::ops::audit::{FileOpen, KeyLastUsage, LastUsage};
pub use chain::Position;
pub use checkpoint::Checkpoint;
pub use event::{Event, EventTime, SUCCESS, request_id};
pub use export::verify_export;
pub use filter::AuditFilter;
pub use prune::Pruned;
pub use verify::AuditReport;

use keys::AuditKeys;
pub(super) use known::AuditNote;
use last_use::LastUse;
use log::Log;
use opens::First;
pub(super) use opens::OpenKey;
use writer::Writer;

use crate::crypto::ed25519::PublicKey;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::database::Sharing;
use crate::keystore::storage::root::RootKey;

/// What happens to an operation that cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    /// It is done all the same; that a record is missing is written down as soon as possible.
    #[default]
    BestEffort,
    /// It is refused. Operations wait for the disk.
    Required,
}

impl AuditMode {
    /// The name of the mode.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Required => "required",
        }
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Its place.
    #[serde(flatten)]
    pub position: Position,
    /// What it says.
    pub event: Event,
}

/// The log of an open keystore.
pub(super) struct Audit {
    writer: Writer,
    required: AtomicBool,
}

impl Audit {
    /// The log of the keystore at `keystore`. Touches no file before there is something to write.
    pub(super) fn new(keystore: &Path, root: &RootKey, sharing: Sharing) -> Self {
        let log = Log::new(place(keystore), sharing, AuditKeys::new(root));
        Self { writer: Writer::new(log), required: AtomicBool::new(false) }
    }

    /// Learns what the keystore's own file says.
    pub(super) fn learn(&self, note: &AuditNote) {
        self.required.store(note.mode == AuditMode::Required, Ordering::Relaxed);
        self.log().known().learn(note);
    }

    /// The mode that this process knows of.
    pub(super) fn mode(&self) -> AuditMode {
        match self.required.load(Ordering::Relaxed) {
            true => AuditMode::Required,
            false => AuditMode::BestEffort,
        }
    }

    /// Writes down an event: soon, or before it returns if the log is required.
    /// Errors: `AuditUnwritable`, only if the log is required.
    pub(super) fn record(&self, event: Event) -> Result<(), KeystoreError> {
        match self.mode() {
            AuditMode::BestEffort => {
                self.writer.push(event);
                Ok(())
            }
            AuditMode::Required => self.writer.write(event),
        }
    }

    /// Writes down an event that is durable when this returns `Ok`.
    /// Errors: `AuditUnwritable`.
    pub(super) fn record_durably(&self, event: Event) -> Result<(), KeystoreError> {
        self.writer.write(event)
    }

    /// Counts an open of a file. If the log is required, the first open by a user in a minute waits
    /// for the disk like every operation.
    /// Errors: `AuditUnwritable`, only if the log is required; `Crypto`.
    pub(super) fn count_open(
        &self,
        key: OpenKey,
        time: EventTime,
        describe: impl FnOnce() -> Result<Event, KeystoreError>,
    ) -> Result<(), KeystoreError> {
        self.writer.count_open(key, time, self.first(), describe)
    }

    /// Counts a refused open. The first in a minute is written like every event, the others with
    /// their number when the minute is over.
    /// Errors: as [`Audit::count_open`].
    pub(super) fn count_refusal(
        &self,
        key: OpenKey,
        time: EventTime,
        describe: impl FnOnce() -> Result<Event, KeystoreError>,
    ) -> Result<(), KeystoreError> {
        self.writer.count_refusal(key, time, self.first(), describe)
    }

    fn first(&self) -> First {
        match self.mode() {
            AuditMode::BestEffort => First::Counted,
            AuditMode::Required => First::Written,
        }
    }

    /// Notes that a key was used by an operation that is written down elsewhere, or nowhere.
    pub(super) fn note_use(&self, key: KeyId, operation: &str, time: EventTime, request_id: &str) {
        if let Some(name) = last_use::name_of_use(operation) {
            let (operation, request_id) = (name.to_owned(), request_id.to_owned());
            self.writer.note_use(key, LastUse { operation, time, request_id });
        }
    }

    /// Writes what is queued.
    /// Errors: `AuditUnwritable`.
    pub(super) fn flush(&self) -> Result<(), KeystoreError> {
        self.writer.flush()
    }

    /// Signs the end of the log as it is now. `None` if there is no log.
    pub(super) fn checkpoint(&self, now: SystemTime) -> Result<Option<Checkpoint>, KeystoreError> {
        self.flush()?;
        self.log().checkpoint(now)
    }

    /// Brings up to date what the keystore's file says: the newest record that this process knows
    /// of, and what the log was found without.
    pub(super) fn note(&self, note: &mut AuditNote) {
        self.log().known().note(note);
    }

    /// A place that the keystore's file should note, if it was told of no later one.
    pub(super) fn worth_noting(&self) -> Option<Position> {
        self.log().known().worth_noting()
    }

    /// True if the keystore's file, as far as this process knows, has noted `place` or a later one,
    /// and all that the log was found without.
    pub(super) fn is_saved(&self, place: Position) -> bool {
        self.log().known().is_saved(place)
    }

    /// Looks whether the log has the places that it must have. If not, it is written down there.
    /// Errors: those of the file.
    pub(super) fn compare(&self, now: SystemTime) -> Result<(), KeystoreError> {
        self.log().compare(now)
    }

    /// What checks the signatures.
    pub(super) fn public_key(&self) -> PublicKey {
        self.log().keys.public()
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        self.log().path()
    }

    /// Events that wait; events written and events lost by this process.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let (written, lost) = self.writer.totals();
        (self.writer.depth() as u64, written, lost)
    }

    fn log(&self) -> &Log {
        self.writer.log()
    }
}

/// Where the log of a keystore is.
pub(super) fn place(keystore: &Path) -> PathBuf {
    let mut name = keystore.as_os_str().to_owned();
    name.push(".audit");
    name.into()
}
