//! Between two keystores that one process has open nothing is carried, and nobody compares.
//!
//! Both keystores are asked whether the caller may before either is written to. The transfer key
//! is never stored, so a transfer that fails leaves nothing that could open it later.

use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::access;
use crate::keystore::access::lockout::LockoutCheck;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::ops::replicas::receive::{
    NewTransferKey, Received, Trust, admit_news, admit_replica,
};
use crate::keystore::ops::replicas::send::ReplicaProperties;
use crate::keystore::records::key::{KeyRecord, Operation, permit};
use crate::keystore::records::transfer::{Transfer, TransferKind};
use crate::keystore::storage::sealed::Reader;

impl Keystore {
    /// Replicates a key into another keystore that is open here.
    /// Errors: those of [`Keystore::replicate_key`] and [`Keystore::receive_key`], `Lockout`,
    /// `MalformedPolicy`.
    pub fn replicate_key_into(
        &self,
        key: KeyId,
        destination: &Self,
        properties: ReplicaProperties,
        now: SystemTime,
    ) -> Result<Received, KeystoreError> {
        let (draft, lockout) = (destination.draft_transfer_key()?, properties.lockout);
        let record = self.may_send(Action::ReplicateKey, key, &draft.public.region)?;
        destination.ahead(Action::CreateKey, key, |reader| {
            let mut sent = properties.clone().apply(record);
            admit_replica(reader, destination.subject(), key, &mut sent, lockout)
        })?;
        let transfer = self.replicate_key(key, &draft.public, properties)?;
        let trust = Trust::Identity(self.identity());
        let received = destination.receive(&transfer, &trust, lockout, |_| Ok(draft.private));
        // What was stored stays known, even if writing it down failed.
        if received.is_err()
            && !destination.has_key(key)?
            && let Err(error) = self.forget_replica(key, &transfer.to, now)
        {
            log::warn!("key {key} has no replica in {}, but notes one: {error}", transfer.to);
        }
        received
    }

    /// Makes the replica in another keystore that is open here the primary key.
    /// Errors: those of [`Keystore::update_primary_region`] and [`Keystore::receive_key`]. If it
    /// fails between the two keystores, the same call goes on where it stopped.
    pub fn update_primary_region_in(
        &self,
        key: KeyId,
        destination: &Self,
    ) -> Result<Received, KeystoreError> {
        let (action, kind) = (Action::UpdatePrimaryRegion, TransferKind::Primary);
        let draft = destination.draft_transfer_key()?;
        self.may_send(action, key, &draft.public.region)?;
        destination
            .ahead(action, key, |reader| admit_news(reader, destination.subject(), kind, key))?;
        let transfer = self.update_primary_region(key, &draft.public)?;
        destination.receive_from(self, &transfer, draft)
    }

    /// Brings the material of a primary key to its replica in a keystore that is open here.
    /// Errors: those of [`Keystore::sync_replica`] and [`Keystore::receive_key`].
    pub fn sync_replica_in(
        &self,
        key: KeyId,
        destination: &Self,
    ) -> Result<Received, KeystoreError> {
        let draft = destination.draft_transfer_key()?;
        let transfer = self.sync_replica(key, &draft.public)?;
        destination.receive_from(self, &transfer, draft)
    }
}

impl Keystore {
    /// Errors: `KeyNotFound`, `AccessDenied`, `Disabled`, `InvalidState`.
    fn may_send(
        &self,
        action: Action,
        key: KeyId,
        region: &str,
    ) -> Result<KeyRecord, KeystoreError> {
        self.ahead(action, key, |reader| {
            let record = KeyRecord::find(reader, key)?;
            let about = Some((key, &record));
            let request_context = RequestContext::to_region(action, region);
            access::authorise(reader, self.subject(), action, about, request_context)?;
            permit(Operation::Crypto, key, record.state)?;
            Ok(record)
        })
    }

    /// Asks before anything is written. Only a refusal is written down: what is granted is asked
    /// again, and written down, by the operation itself.
    fn ahead<T>(
        &self,
        action: Action,
        key: KeyId,
        check: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.read(check).or_else(|refusal| {
            self.operate(action, None, |details| {
                details.key = Some(key);
                Err(refusal)
            })
        })
    }

    fn receive_from(
        &self,
        source: &Self,
        transfer: &Transfer,
        draft: NewTransferKey,
    ) -> Result<Received, KeystoreError> {
        let trust = Trust::Identity(source.identity());
        self.receive(transfer, &trust, LockoutCheck::default(), |_| Ok(draft.private))
    }
}
