//! What a keystore offers around its audit log. Everything that changes the log is in it.

use std::io::Write;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::audit::{
    AuditFilter, AuditMode, AuditRecord, AuditReport, Checkpoint, Event, EventTime, FileOpen,
    KeyLastUsage, LastUsage, Opener, Pruned, request_id,
};
use crate::keystore::engine::{Keystore, frame};
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::time::UnixTime;

impl Keystore {
    /// What happens to operations that cannot be written down.
    pub fn audit_mode(&self) -> AuditMode {
        self.audit().mode()
    }

    /// Sets what happens to operations that cannot be written down.
    /// Errors: `AuditUnwritable`: nothing was changed.
    pub fn set_audit_mode(&self, mode: AuditMode) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::SetAuditMode, |details| {
            details.detail = Some(mode.as_str().to_owned());
            if self.audit_mode() == AuditMode::BestEffort {
                // So that nobody is held to a log that cannot be written.
                let mut event =
                    self.own_event(OwnOperation::SetAuditMode, mode.as_str().to_owned())?;
                event.result = frame::ATTEMPT.into();
                self.audit().record_durably(event)?;
            }
            self.write(|writer| {
                writer.meta.audit.mode = mode;
                Ok(())
            })
        })
    }

    /// The key that checks the signatures of the log's checkpoints, as PEM.
    pub fn audit_public_key(&self) -> String {
        self.audit().public_key().to_pem()
    }

    /// The file of the log; it may not be there yet.
    pub fn audit_path(&self) -> &std::path::Path {
        self.audit().path()
    }

    /// Shows the records that match, oldest first, until `show` has seen enough.
    /// Errors: `Tampered` for a record that does not authenticate; those of the file.
    pub fn audit_records(
        &self,
        filter: &AuditFilter,
        show: impl FnMut(AuditRecord) -> ControlFlow<()>,
    ) -> Result<(), KeystoreError> {
        self.audit().each(filter, show)
    }

    /// Writes the records that match as JSON lines, which
    /// [`verify_export`](crate::keystore::audit::verify_export) checks. The end is signed first, so that
    /// all of it can be shown to be the keystore's. Returns how many records were written.
    /// Errors: `Tampered`, `Io`; those of the file.
    pub fn export_audit(
        &self,
        filter: &AuditFilter,
        out: &mut dyn Write,
        now: SystemTime,
    ) -> Result<u64, KeystoreError> {
        self.audit_checkpoint(now)?;
        self.audit().export(filter, out, now)
    }

    /// Checks the whole log.
    /// Errors: those of reading; what is wrong is in the report.
    pub fn verify_audit(&self) -> Result<AuditReport, KeystoreError> {
        self.learn_audit()?;
        self.audit().verify()
    }

    /// Signs the end of the log and notes it in the keystore's own file. `None` if there is no
    /// log yet.
    /// Errors: `AuditUnwritable`; those of the files.
    pub fn audit_checkpoint(&self, now: SystemTime) -> Result<Option<Checkpoint>, KeystoreError> {
        let made = self.audit().checkpoint(now)?;
        if let Some(checkpoint) = &made {
            self.note_audit(checkpoint.position, now)?;
        }
        Ok(made)
    }

    /// How many records lie wholly before a time, so that [`Keystore::prune_audit`] removes them.
    /// Errors: `AuditDamaged`, as there; those of the file.
    pub fn prunable_audit(&self, before: EventTime) -> Result<u64, KeystoreError> {
        self.learn_audit()?;
        self.audit().prunable(before).map(|(_, count)| count)
    }

    /// Removes the records before a time, and writes down that it did. The rest can still be
    /// checked.
    /// Errors: `AuditUnwritable`; `AuditDamaged` if one of them was changed, or one is missing before
    /// the last of them: nothing was removed then. Those of the file.
    pub fn prune_audit(&self, before: EventTime, now: SystemTime) -> Result<Pruned, KeystoreError> {
        self.learn_audit()?;
        let (cut, removed) = self.audit().prunable(before)?;
        let Some(cut) = cut else {
            // What an earlier call could not give back.
            self.audit().shrink();
            return Ok(Pruned::default());
        };
        let mut event =
            self.own_event(OwnOperation::PruneAudit, format!("records before {before}"))?;
        event.count = removed;
        self.audit().prune(cut, event, now)?;
        // The records are gone by now.
        if let Err(error) = self.audit_checkpoint(now) {
            log::warn!("the end of the audit log is not signed yet: {error}");
        }
        self.audit().shrink();
        Ok(Pruned { removed, until: Some(cut.seq) })
    }

    /// Waits until everything that happened is in the log's file.
    /// Errors: `AuditUnwritable`.
    pub fn flush_audit(&self) -> Result<(), KeystoreError> {
        self.audit().flush()
    }

    /// When the key was last used, and for what. Keys are not named by alias here, as in AWS.
    /// Errors: `KeyNotFound`, `AccessDenied`.
    pub fn get_key_last_usage(&self, key: KeyId) -> Result<KeyLastUsage, KeystoreError> {
        let key = KeyRef::Id(key);
        let (id, made) =
            self.view(Action::GetKeyLastUsage, &key, |_, key, record| Ok((key, record.created)))?;
        let usage = self.audit().key_usage(id)?;
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
        self.metrics().opens[0].fetch_add(1, Ordering::Relaxed);
        let opener = Opener::new(self.caller(), open, None);
        self.audit().count_open(opener, open, self.caller().time().into())
    }

    /// Writes down that an open was refused: the first time in a minute at once, and then how often
    /// more, so that a loop of refused opens does not fill the log.
    /// Errors: `AuditUnwritable`, only if the log is required.
    pub fn record_refused_open(
        &self,
        open: &FileOpen,
        why: &KeystoreError,
    ) -> Result<(), KeystoreError> {
        self.metrics().opens[1].fetch_add(1, Ordering::Relaxed);
        let refused = (why.aws_name().into(), why.to_string());
        let opener = Opener::new(self.caller(), open, Some(refused));
        self.audit().count_refusal(opener, open, self.caller().time().into())
    }

    fn own_event(&self, operation: OwnOperation, detail: String) -> Result<Event, KeystoreError> {
        let mut event = Event::by(self.caller(), operation.as_str(), request_id()?);
        event.detail = Some(detail);
        Ok(event)
    }
}
