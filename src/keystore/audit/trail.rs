//! The log of an open keystore, as the rest of the keystore uses it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::checkpoint::{Checkpoint, Statement};
use super::event::{Event, EventTime};
use super::file::AuditFile;
use super::keys::AuditKeys;
use super::last_use::{self, KeyUsage, LastUse};
use super::log::Log;
use super::opens::{FileOpen, First, Opener};
use super::writer::Writer;
use crate::crypto::ed25519::PublicKey;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::{AuditMode, AuditNote, Position};
use crate::keystore::storage::companions::{beside, check_none_left};
use crate::keystore::storage::database::Sharing;
use crate::keystore::storage::root::RootKey;

/// The log of an open keystore.
pub(in crate::keystore) struct Audit {
    writer: Writer,
    required: AtomicBool,
}

impl Audit {
    /// The log of the keystore at `keystore`. Touches no file before there is something to write.
    pub(in crate::keystore) fn new(keystore: &Path, root: &RootKey, sharing: Sharing) -> Self {
        let log = Log::new(log_path(keystore), sharing, AuditKeys::new(root));
        Self { writer: Writer::new(log), required: AtomicBool::new(false) }
    }

    /// Learns what the keystore's own file says.
    pub(in crate::keystore) fn learn(&self, note: &AuditNote) {
        self.required.store(note.mode == AuditMode::Required, Ordering::Relaxed);
        self.log().known().learn(note);
    }

    /// The mode that this process knows of.
    pub(in crate::keystore) fn mode(&self) -> AuditMode {
        match self.required.load(Ordering::Relaxed) {
            true => AuditMode::Required,
            false => AuditMode::BestEffort,
        }
    }

    /// Writes down an event: soon, or before it returns if the log is required.
    /// Errors: `AuditUnwritable`, only if the log is required.
    pub(in crate::keystore) fn record(&self, event: Event) -> Result<(), KeystoreError> {
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
    pub(in crate::keystore) fn record_durably(&self, event: Event) -> Result<(), KeystoreError> {
        self.writer.write(event)
    }

    /// Counts an open of a file. If the log is required, the first open by a user in a minute waits
    /// for the disk like every operation.
    /// Errors: `AuditUnwritable`, only if the log is required; `Crypto`.
    pub(in crate::keystore) fn count_open(
        &self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
    ) -> Result<(), KeystoreError> {
        self.writer.count_open(opener, open, time, self.first())
    }

    /// Counts a refused open. The first in a minute is written like every event, the others with
    /// their number when the minute is over.
    /// Errors: as [`Audit::count_open`].
    pub(in crate::keystore) fn count_refusal(
        &self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
    ) -> Result<(), KeystoreError> {
        self.writer.count_refusal(opener, open, time, self.first())
    }

    fn first(&self) -> First {
        match self.mode() {
            AuditMode::BestEffort => First::Counted,
            AuditMode::Required => First::Written,
        }
    }

    /// Notes that a key was used by an operation that is written down elsewhere, or nowhere.
    pub(in crate::keystore) fn note_use(
        &self,
        key: KeyId,
        operation: &str,
        time: EventTime,
        request_id: &str,
    ) {
        if let Some(name) = last_use::name_of_use(operation) {
            let (operation, request_id) = (name.to_owned(), request_id.to_owned());
            self.writer.note_use(key, LastUse { operation, time, request_id });
        }
    }

    /// Writes what is queued.
    /// Errors: `AuditUnwritable`.
    pub(in crate::keystore) fn flush(&self) -> Result<(), KeystoreError> {
        self.writer.flush()
    }

    /// Signs the end of the log as it is now. `None` if there is no log.
    pub(in crate::keystore) fn checkpoint(
        &self,
        now: SystemTime,
    ) -> Result<Option<Checkpoint>, KeystoreError> {
        self.flush()?;
        self.log().checkpoint(now)
    }

    /// Brings up to date what the keystore's file says: the newest record that this process knows
    /// of, and what the log was found without.
    pub(in crate::keystore) fn note(&self, note: &mut AuditNote) {
        self.log().known().note(note);
    }

    /// A position that the keystore's file should note, if it was told of no later one.
    pub(in crate::keystore) fn worth_noting(&self) -> Option<Position> {
        self.log().known().worth_noting()
    }

    /// True if the keystore's file, as far as this process knows, has noted `position` or a later one,
    /// and all that the log was found without.
    pub(in crate::keystore) fn is_saved(&self, position: Position) -> bool {
        self.log().known().is_saved(position)
    }

    /// Looks whether the log has the positions that it must have. If not, it is written down there.
    /// Errors: those of the file.
    pub(in crate::keystore) fn compare(&self, now: SystemTime) -> Result<(), KeystoreError> {
        self.log().compare(now)
    }

    /// What checks the signatures.
    pub(in crate::keystore) fn public_key(&self) -> PublicKey {
        self.log().keys.public()
    }

    /// The file.
    pub(in crate::keystore) fn path(&self) -> &Path {
        self.log().path()
    }

    /// Events that wait; events written and events lost by this process.
    pub(in crate::keystore) fn counts(&self) -> (u64, u64, u64) {
        let (written, lost) = self.writer.totals();
        (self.writer.depth() as u64, written, lost)
    }

    /// What is known about the use of a key, up to now.
    pub(in crate::keystore) fn key_usage(&self, key: KeyId) -> Result<KeyUsage, KeystoreError> {
        self.flush()?;
        let keys = &self.log().keys;
        let found = self.log().with(|file| {
            file.read(|rows| {
                let since = rows.last_use(&[0; 16])?;
                let since = since.and_then(|sealed| keys.open_last_use(&[0; 16], &sealed).ok());
                let since = since.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
                let last = rows.last_use(key.as_bytes())?;
                let last = last.and_then(|sealed| last_use::read(keys, key.as_bytes(), &sealed));
                Ok(KeyUsage { since, last })
            })
        })?;
        Ok(found.unwrap_or_default())
    }

    pub(super) fn log(&self) -> &Log {
        self.writer.log()
    }
}

/// Takes along the log that earlier versions kept beside a symbolic link, `name`, to the keystore.
/// Two logs are never made one.
pub(in crate::keystore) fn bring_along(name: &Path, keystore: &Path, root: &RootKey) {
    let (from, to) = (log_path(name), log_path(keystore));
    let Ok(there) = fs::symlink_metadata(&from) else { return };
    if !there.is_file() || from.canonicalize().is_ok_and(|from| from == to) {
        return;
    }
    let owner = |path: &Path| fs::metadata(path).map(|there| there.uid()).ok();
    let whole = owner(&from) == owner(keystore) && check_none_left(&from).is_ok();
    let moved = whole
        && is_log_of(&from, root)
        && renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE).is_ok();
    let (from, to) = (from.display(), to.display());
    if moved {
        log::warn!("the audit log '{from}' lay beside a link to the keystore: it is '{to}' now");
    } else {
        log::warn!(
            "'{from}' lies beside a link to the keystore, whose audit log is '{to}': nothing reads or \
             writes the one beside the link, so move it to a safe place"
        );
    }
}

/// A link may have led to another keystore before.
fn is_log_of(path: &Path, root: &RootKey) -> bool {
    let anchor = AuditFile::open(path, Sharing::Processes)
        .and_then(|file| file.map(|mut file| file.read(|rows| rows.anchor())).transpose());
    let keys = AuditKeys::new(root);
    matches!(anchor, Ok(Some(anchor)) if keys.is_signed(Statement::Anchor, &anchor))
}

/// Where the log of a keystore is.
pub(in crate::keystore) fn log_path(keystore: &Path) -> PathBuf {
    beside(keystore, ".audit")
}
