//! What a keystore offers around its audit log. Everything that changes the log is in it.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::id::{FileId, KeyId, MaterialId};
use crate::keystore::Keystore;
use crate::keystore::audit::{
    AuditFilter, AuditMode, AuditRecord, AuditReport, Checkpoint, Event, EventTime, OpenKey,
    Position, Pruned, request_id,
};
use crate::keystore::engine::frame;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{KeyArn, KeyRef, text};
use crate::keystore::model::time::UnixTime;

/// An open of a file through a mount.
#[derive(Debug, Clone, Copy)]
pub struct FileOpen {
    /// What it stands for: Decrypt, or GenerateDataKey for a file that is made.
    pub action: Action,
    /// The key of the file.
    pub key: KeyId,
    /// The material of the key, if it was looked at.
    pub material: Option<MaterialId>,
    /// The file; none if it was refused before there was one.
    pub file: Option<FileId>,
}

/// What GetKeyLastUsage answers. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyLastUsage {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// The last use; empty if there was none since tracking began.
    pub key_last_usage: LastUsage,
    /// Since when uses are tracked, or the creation of the key if that is later.
    pub tracking_start_date: UnixTime,
    /// When the key was made.
    pub key_creation_date: UnixTime,
}

/// The last successful cryptographic operation with a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LastUsage {
    /// The operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<UnixTime>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_request_id: Option<String>,
}

impl Keystore {
    /// What happens to operations that cannot be written down.
    pub fn audit_mode(&self) -> AuditMode {
        self.inner.audit.mode()
    }

    /// Sets what happens to operations that cannot be written down.
    /// Errors: `AuditUnwritable`: nothing was changed.
    pub fn set_audit_mode(&self, mode: AuditMode) -> Result<(), KeystoreError> {
        self.operate_own(SET_MODE, |touched| {
            touched.detail = Some(mode.as_str().to_owned());
            if self.audit_mode() == AuditMode::BestEffort {
                // So that nobody is held to a log that cannot be written.
                let mut event = self.own_event(SET_MODE, mode.as_str().to_owned())?;
                event.result = frame::ATTEMPT.into();
                self.inner.audit.record_durably(event)?;
            }
            self.write(|writer| {
                writer.meta.audit.mode = mode;
                Ok(())
            })
        })
    }

    /// The key that checks the signatures of the log's checkpoints, as PEM.
    pub fn audit_public_key(&self) -> String {
        self.inner.audit.public_key().to_pem()
    }

    /// The file of the log; it may not be there yet.
    pub fn audit_path(&self) -> &std::path::Path {
        self.inner.audit.path()
    }

    /// Shows the records that match, oldest first, until `show` has seen enough.
    /// Errors: `Tampered` for a record that does not authenticate; those of the file.
    pub fn audit_records(
        &self,
        filter: &AuditFilter,
        show: impl FnMut(AuditRecord) -> ControlFlow<()>,
    ) -> Result<(), KeystoreError> {
        self.inner.audit.each(filter, show)
    }

    /// Writes the records that match as JSON lines, which [`super::verify_export`] checks. The end
    /// is signed first, so that all of it can be shown to be the keystore's. Returns how many
    /// records were written.
    /// Errors: `Tampered`, `Io`; those of the file.
    pub fn export_audit(
        &self,
        filter: &AuditFilter,
        out: &mut dyn Write,
        now: SystemTime,
    ) -> Result<u64, KeystoreError> {
        self.audit_checkpoint(now)?;
        self.inner.audit.export(filter, out)
    }

    /// Checks the whole log.
    /// Errors: those of reading; what is wrong is in the report.
    pub fn verify_audit(&self) -> Result<AuditReport, KeystoreError> {
        self.learn_audit()?;
        self.inner.audit.verify()
    }

    /// Signs the end of the log and notes it in the keystore's own file. `None` if there is no
    /// log yet.
    /// Errors: `AuditUnwritable`; those of the files.
    pub fn audit_checkpoint(&self, now: SystemTime) -> Result<Option<Checkpoint>, KeystoreError> {
        let made = self.inner.audit.checkpoint(now)?;
        if let Some(checkpoint) = &made {
            self.note_audit(checkpoint.position, now)?;
        }
        Ok(made)
    }

    /// How many records lie wholly before a time, so that [`Keystore::prune_audit`] removes them.
    /// Errors: `AuditDamaged`, as there; those of the file.
    pub fn prunable_audit(&self, before: EventTime) -> Result<u64, KeystoreError> {
        self.learn_audit()?;
        self.inner.audit.prunable(before).map(|(_, count)| count)
    }

    /// Removes the records before a time, and writes down that it did. The rest can still be
    /// checked.
    /// Errors: `AuditUnwritable`; `AuditDamaged` if one of them was changed, or one is missing before
    /// the last of them: nothing was removed then. Those of the file.
    pub fn prune_audit(&self, before: EventTime, now: SystemTime) -> Result<Pruned, KeystoreError> {
        self.learn_audit()?;
        let (cut, removed) = self.inner.audit.prunable(before)?;
        let Some(cut) = cut else {
            // What an earlier call could not give back.
            self.inner.audit.shrink();
            return Ok(Pruned::default());
        };
        let mut event = self.own_event("kmsfs:PruneAudit", format!("records before {before}"))?;
        event.count = removed;
        self.inner.audit.prune(cut, event, now)?;
        self.audit_checkpoint(now)?;
        self.inner.audit.shrink();
        Ok(Pruned { removed, until: Some(cut.seq) })
    }

    /// Waits until everything that happened is in the log's file.
    /// Errors: `AuditUnwritable`.
    pub fn flush_audit(&self) -> Result<(), KeystoreError> {
        self.inner.audit.flush()
    }

    /// When the key was last used, and for what. Keys are not named by alias here, as in AWS.
    /// Errors: `KeyNotFound`, `AccessDenied`.
    pub fn get_key_last_usage(&self, key: KeyId) -> Result<KeyLastUsage, KeystoreError> {
        let key = KeyRef::Id(key);
        let (id, made) =
            self.view(Action::GetKeyLastUsage, &key, |_, key, record| Ok((key, record.created)))?;
        let usage = self.inner.audit.key_usage(id)?;
        let seconds = |time: EventTime| UnixTime::from_seconds(time.seconds());
        let last = usage.last.map(|last| LastUsage {
            operation: Some(last.operation),
            timestamp: Some(seconds(last.time)),
            kms_request_id: Some(last.request_id),
        });
        Ok(KeyLastUsage {
            key_id: id,
            key_last_usage: last.unwrap_or_default(),
            tracking_start_date: usage.since.map_or(made, |since| seconds(since).max(made)),
            key_creation_date: made,
        })
    }

    /// Writes down that the caller of this handle opened a file. Opens of one file by one user are
    /// counted in memory for a minute, so this costs little.
    /// Errors: `AuditUnwritable`, only if the log is required: the open must be refused then.
    pub fn record_open(&self, open: &FileOpen) -> Result<(), KeystoreError> {
        self.inner.metrics.opens[0].fetch_add(1, Ordering::Relaxed);
        let key = self.open_key(open, None);
        let time = self.caller.time().into();
        self.inner.audit.count_open(key, time, || self.open_event(open))
    }

    /// Writes down that an open was refused: the first time in a minute at once, and then how often
    /// more, so that a loop of refused opens does not fill the log.
    /// Errors: `AuditUnwritable`, only if the log is required.
    pub fn record_refused_open(
        &self,
        open: &FileOpen,
        why: &KeystoreError,
    ) -> Result<(), KeystoreError> {
        self.inner.metrics.opens[1].fetch_add(1, Ordering::Relaxed);
        let key = self.open_key(open, Some(why.to_string()));
        self.inner.audit.count_refusal(key, self.caller.time().into(), || {
            let mut event = self.open_event(open)?;
            event.result = why.aws_name().into();
            event.detail = Some(why.to_string());
            Ok(event)
        })
    }

    fn open_key(&self, open: &FileOpen, refused: Option<String>) -> OpenKey {
        OpenKey {
            principal: self.caller.principal.arn().into(),
            operation: open.action.as_str(),
            file: open.file.map_or([0; 16], |file| *file.as_bytes()),
            key: *open.key.as_bytes(),
            refused,
        }
    }

    fn open_event(&self, open: &FileOpen) -> Result<Event, KeystoreError> {
        let request = self.caller.request_id.clone().map_or_else(request_id, Ok)?;
        let mut event = Event::by(&self.caller, open.action.as_str(), request);
        event.key = Some(KeyArn(open.key).to_string());
        event.material = open.material.map(|material| material.to_string());
        event.file = open.file.map(|file| file.to_string());
        Ok(event)
    }

    fn own_event(&self, name: &'static str, detail: String) -> Result<Event, KeystoreError> {
        let mut event = Event::by(&self.caller, name, request_id()?);
        event.detail = Some(detail);
        Ok(event)
    }

    /// Learns what the keystore's own file says about the log just now.
    fn learn_audit(&self) -> Result<(), KeystoreError> {
        let note = self.read(|reader| reader.meta())?.audit;
        self.inner.audit.learn(&note);
        Ok(())
    }

    /// Notes a place of the log in the keystore's own file, unless a later one is noted, and what
    /// the log was found without.
    fn note_audit(&self, position: Position, now: SystemTime) -> Result<(), KeystoreError> {
        self.learn_audit()?;
        if self.inner.audit.is_saved(position) {
            return Ok(());
        }
        // Another process may have noted a place that this one has not looked for.
        self.inner.audit.compare(now)?;
        // Whatever is written notes the newest place, of which this one is a part.
        self.write(|_| Ok(()))
    }

    /// Notes a place that was signed since, or that records were lost, at most once a minute: every
    /// process with the keystore looks at all rows after a change.
    pub(in crate::keystore) fn note_audit_if_due(&self) {
        let due = self.lock().noted.is_none_or(|noted| noted.elapsed() >= NOTE_EVERY);
        let Some(place) = self.inner.audit.worth_noting().filter(|_| due) else { return };
        self.lock().noted = Some(Instant::now());
        if let Err(error) = self.note_audit(place, self.caller.time()) {
            log::warn!("the keystore does not learn where its audit log is: {error}");
        }
    }
}

const SET_MODE: &str = "kmsfs:SetAuditMode";
const NOTE_EVERY: Duration = Duration::from_secs(60);
