//! The frame that every operation runs in: authorise, check the state, act, write down.

use super::access::{self, Asked};
use super::action::Action;
use super::alias::AliasRecord;
use super::cache::LiveKey;
use super::error::KeystoreError;
use super::id::KeyRef;
use super::key::{KeyRecord, Operation, permit};
use super::record::{Reader, Writer};
use super::{Keystore, context::EncryptionContext};
use crate::id::{KeyId, MaterialId};

use std::sync::Arc;

/// What an operation turned out to be about, for those who write it down.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) key: Option<KeyId>,
    pub(super) material: Option<MaterialId>,
}

impl Keystore {
    /// Runs one operation and writes down what came of it.
    pub(super) fn operate<T>(
        &self,
        action: Action,
        context: Option<&EncryptionContext>,
        work: impl FnOnce(&mut Touched) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let mut touched = Touched::default();
        let done = work(&mut touched);
        self.note(action, context, &touched, done.as_ref().err());
        done
    }

    /// One transaction that reads a key, checks that the caller may and that the key's state
    /// permits `operation`, lets `change` work on it, and stores it.
    pub(super) fn edit<T>(
        &self,
        action: Action,
        key: &KeyRef,
        operation: Operation,
        change: impl FnOnce(&mut Writer<'_>, KeyId, &mut KeyRecord) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.operate(action, None, |touched| {
            self.write(|writer| {
                let key = named(writer, key)?;
                touched.key = Some(key);
                let mut record = KeyRecord::find(writer, key)?;
                let about = Some((key, &record));
                access::authorise(writer, &self.caller, action, about, Asked::default())?;
                permit(operation, key, record.state)?;
                self.stop_if_dry()?;
                let done = change(writer, key, &mut record)?;
                record.save(writer, key)?;
                Ok(done)
            })
        })
    }

    /// Reads about one key.
    pub(super) fn view<T>(
        &self,
        action: Action,
        key: &KeyRef,
        look: impl FnOnce(&Reader<'_>, KeyId, KeyRecord) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.operate(action, None, |touched| {
            self.read(|reader| {
                let key = named(reader, key)?;
                touched.key = Some(key);
                let record = KeyRecord::find(reader, key)?;
                let about = Some((key, &record));
                access::authorise(reader, &self.caller, action, about, Asked::default())?;
                look(reader, key, record)
            })
        })
    }

    /// Reads what is about no single key.
    pub(super) fn view_all<T>(
        &self,
        action: Action,
        look: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.operate(action, None, |_| {
            self.read(|reader| {
                access::authorise(reader, &self.caller, action, None, Asked::default())?;
                look(reader)
            })
        })
    }

    /// A key that the caller may use for a cryptographic operation now.
    pub(super) fn usable(
        &self,
        action: Action,
        key: KeyId,
        asked: Asked<'_>,
        touched: &mut Touched,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        touched.key = Some(key);
        let live = self.live(key)?;
        self.authorise_live(action, &live, asked)?;
        permit(Operation::Crypto, key, live.record.state)?;
        self.stop_if_dry()?;
        Ok(live)
    }

    /// Errors: `DryRun` if the caller only wants to know whether it would succeed.
    pub(super) fn stop_if_dry(&self) -> Result<(), KeystoreError> {
        if self.caller.dry_run { Err(KeystoreError::DryRun) } else { Ok(()) }
    }

    /// A volume's own needs are written down where the volume knows for whom they are.
    fn note(
        &self,
        action: Action,
        _context: Option<&EncryptionContext>,
        touched: &Touched,
        error: Option<&KeystoreError>,
    ) {
        if let Some(error @ KeystoreError::AccessDenied(_)) = error {
            log::warn!("{action}, key {:?}: {error}", touched.key);
        }
    }
}

/// The key that is meant, in a transaction.
/// Errors: `AliasNotFound`.
pub(super) fn named(reader: &Reader<'_>, key: &KeyRef) -> Result<KeyId, KeystoreError> {
    match key {
        KeyRef::Id(id) => Ok(*id),
        KeyRef::Alias(alias) => AliasRecord::target(reader, alias),
    }
}
