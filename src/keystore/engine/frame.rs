//! The frame that every operation runs in: authorise, check the state, act, write down.

use crate::id::{KeyId, MaterialId};
use crate::keystore::access;
use crate::keystore::access::request::RequestContext;
use crate::keystore::audit::{AuditMode, Event, SUCCESS, request_id};
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::Principal;
use crate::keystore::model::context::EncryptionContext;
use crate::keystore::model::id::{KeyArn, KeyRef};
use crate::keystore::model::operation::{AuditedOperation, OwnOperation};
use crate::keystore::records::algorithm::check_usage;
use crate::keystore::records::alias::AliasRecord;
use crate::keystore::records::key::{KeyRecord, Operation, permit};
use crate::keystore::storage::sealed::{Reader, Writer};

use std::sync::Arc;
use std::time::Instant;

/// What an operation turned out to be about, for the audit log.
#[derive(Debug, Default)]
pub(in crate::keystore) struct AuditDetails {
    pub(in crate::keystore) key: Option<KeyId>,
    pub(in crate::keystore) material: Option<MaterialId>,
    /// What more there is to say.
    pub(in crate::keystore) detail: Option<String>,
}

/// One call, as it is written down.
#[derive(Clone, Copy)]
struct Call<'a> {
    operation: AuditedOperation,
    context: Option<&'a EncryptionContext>,
    request: &'a str,
}

impl Keystore {
    /// Runs one operation and writes down its result. If the audit log is required, the answer waits
    /// for the record, and changes of the keystore are announced there first.
    pub(in crate::keystore) fn operate<T>(
        &self,
        action: Action,
        context: Option<&EncryptionContext>,
        work: impl FnOnce(&mut AuditDetails) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.run(action.into(), context, work)
    }

    /// As [`Keystore::operate`], for what AWS has no name for.
    pub(in crate::keystore) fn operate_own<T>(
        &self,
        operation: OwnOperation,
        work: impl FnOnce(&mut AuditDetails) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.run(operation.into(), None, work)
    }

    fn run<T>(
        &self,
        operation: AuditedOperation,
        context: Option<&EncryptionContext>,
        work: impl FnOnce(&mut AuditDetails) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let fresh = if self.caller.request_id.is_none() { Some(request_id()?) } else { None };
        let request = self.caller.request_id.as_ref().or(fresh.as_ref()).map_or("", String::as_str);
        let call = Call { operation, context, request };
        let mut details = AuditDetails::default();
        if operation.writes() {
            self.announce_call(call, &details)?;
        }
        let begun = Instant::now();
        let done = work(&mut details);
        self.note_refused_pins();
        let result = done.as_ref().map_or_else(KeystoreError::aws_name, |_| SUCCESS);
        self.inner.metrics.observe(operation.as_str(), result, begun.elapsed());
        if let Err(error) = &done {
            details.detail = Some(error.to_string());
        } else if self.caller.principal == Principal::Service {
            // The volume writes down what it opens, and for whom.
            if let Some(key) = details.key {
                self.inner.audit.note_use(
                    key,
                    operation.as_str(),
                    self.caller.time().into(),
                    call.request,
                );
            }
            return done;
        }
        let written = self.record(self.event(call, &details, result));
        let written =
            written.map_err(|error| if operation.writes() { after_all(error) } else { error });
        done.and_then(|done| written.map(|()| done))
    }

    fn event(&self, call: Call<'_>, details: &AuditDetails, result: &'static str) -> Event {
        let mut event = Event::by(&self.caller, call.operation.as_str(), call.request.to_owned());
        if let Some(context) = call.context {
            event.context =
                context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        }
        event.key = details.key.map(|key| KeyArn(key).to_string());
        event.material = details.material.map(|material| material.to_string());
        event.detail.clone_from(&details.detail);
        event.result = result.into();
        event
    }

    fn record(&self, event: Event) -> Result<(), KeystoreError> {
        self.inner.audit.record(event)
    }

    /// Writes down, if the log is required, that the keystore is about to do something to a key by
    /// itself.
    /// Errors: `AuditUnwritable`: it must not be done.
    pub(in crate::keystore) fn announce_own(
        &self,
        operation: OwnOperation,
        key: Option<KeyId>,
    ) -> Result<(), KeystoreError> {
        let (details, request) = (AuditDetails { key, ..AuditDetails::default() }, request_id()?);
        self.announce_call(
            Call { operation: operation.into(), context: None, request: &request },
            &details,
        )
    }

    fn announce_call(&self, call: Call<'_>, details: &AuditDetails) -> Result<(), KeystoreError> {
        match self.inner.audit.mode() {
            AuditMode::Required => self.record(self.event(call, details, ATTEMPT)),
            AuditMode::BestEffort => Ok(()),
        }
    }

    /// Writes down what the keystore did by itself to a key.
    /// Errors: `AuditUnfinished`.
    pub(in crate::keystore) fn record_own(
        &self,
        operation: OwnOperation,
        key: KeyId,
        material: Option<MaterialId>,
    ) -> Result<(), KeystoreError> {
        let details = AuditDetails { key: Some(key), material, detail: None };
        let request = request_id()?;
        let call = Call { operation: operation.into(), context: None, request: &request };
        self.record(self.event(call, &details, SUCCESS)).map_err(after_all)
    }

    /// One transaction that reads a key, checks that the caller may and that the key's state
    /// permits `operation`, lets `change` work on it, and stores it.
    pub(in crate::keystore) fn edit<T>(
        &self,
        action: Action,
        key: &KeyRef,
        operation: Operation,
        change: impl FnOnce(&mut Writer<'_>, KeyId, &mut KeyRecord) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.edit_with(action, key, operation, RequestContext::default(), change)
    }

    /// As [`Keystore::edit`], with the context of the request for policies.
    pub(in crate::keystore) fn edit_with<T>(
        &self,
        action: Action,
        key: &KeyRef,
        operation: Operation,
        request_context: RequestContext<'_>,
        change: impl FnOnce(&mut Writer<'_>, KeyId, &mut KeyRecord) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let request_context = request_context.naming(key);
        self.operate(action, None, |details| {
            self.write(|writer| {
                let key = named(writer, key)?;
                details.key = Some(key);
                let mut record = KeyRecord::find(writer, key)?;
                let about = Some((key, &record));
                access::authorise(writer, self.subject(), action, about, request_context)?;
                permit(operation, key, record.state)?;
                self.stop_if_dry()?;
                let done = change(writer, key, &mut record)?;
                record.save(writer, key)?;
                Ok(done)
            })
        })
    }

    /// Reads about one key.
    pub(in crate::keystore) fn view<T>(
        &self,
        action: Action,
        key: &KeyRef,
        look: impl FnOnce(&Reader<'_>, KeyId, KeyRecord) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let request_context = RequestContext::default().naming(key);
        self.operate(action, None, |details| {
            self.read(|reader| {
                let key = named(reader, key)?;
                details.key = Some(key);
                let record = KeyRecord::find(reader, key)?;
                let about = Some((key, &record));
                access::authorise(reader, self.subject(), action, about, request_context)?;
                look(reader, key, record)
            })
        })
    }

    /// Reads what is about no single key.
    pub(in crate::keystore) fn view_all<T>(
        &self,
        action: Action,
        look: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.operate(action, None, |_| {
            self.read(|reader| {
                access::authorise(reader, self.subject(), action, None, RequestContext::default())?;
                look(reader)
            })
        })
    }

    /// A key that the caller may use for a cryptographic operation now.
    /// Errors: those of [`Keystore::admitted`], `DryRun`.
    pub(in crate::keystore) fn usable(
        &self,
        action: Action,
        key: KeyId,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        let live = self.admitted(action, key, request_context, details)?;
        self.stop_if_dry()?;
        Ok(live)
    }

    /// As [`Keystore::usable`], for callers that check more before a dry run hears that it would
    /// succeed.
    /// Errors: `KeyNotFound`, `AccessDenied`, `Disabled`, `InvalidState`, `InvalidKeyUsage`.
    pub(in crate::keystore) fn admitted(
        &self,
        action: Action,
        key: KeyId,
        request_context: RequestContext<'_>,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        details.key = Some(key);
        let live = self.live(key)?;
        self.authorise_live(action, &live, request_context)?;
        permit(Operation::Crypto, key, live.record.state_at(self.caller.time().into()))?;
        check_usage(action, key, &live.record)?;
        live.link.as_ref().map_or(Ok(()), |link| link.check_connected(key))?;
        Ok(live)
    }

    /// Errors: `DryRun` if the caller only wants to know whether it would succeed.
    pub(in crate::keystore) fn stop_if_dry(&self) -> Result<(), KeystoreError> {
        if self.caller.dry_run { Err(KeystoreError::DryRun) } else { Ok(()) }
    }
}

/// The error when the record of a change cannot be written: the change is durable, and was announced.
fn after_all(error: KeystoreError) -> KeystoreError {
    match error {
        KeystoreError::AuditUnwritable(reason) => KeystoreError::AuditUnfinished(reason),
        error => error,
    }
}

/// The key that is meant, in a transaction.
/// Errors: `AliasNotFound`.
pub(in crate::keystore) fn named(
    reader: &Reader<'_>,
    key: &KeyRef,
) -> Result<KeyId, KeystoreError> {
    match key {
        KeyRef::Id(id) => Ok(*id),
        KeyRef::Alias(alias) => AliasRecord::target(reader, alias),
    }
}

/// The result of records that announce a change which may not have happened yet.
pub(in crate::keystore) const ATTEMPT: &str = "Attempt";

#[cfg(test)]
mod tests {
    use super::*;

    /// "The audit log cannot be written" was said of a change that had been made.
    #[test]
    fn regression_a_change_without_its_last_record_is_told_as_made() {
        let error = after_all(KeystoreError::AuditUnwritable("the disk is full".to_owned()));
        assert!(error.to_string().starts_with("it was done, but"), "{error}");
    }
}
