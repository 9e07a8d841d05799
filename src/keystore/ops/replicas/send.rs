//! The source: ReplicateKey, and new material for replicas.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::id::KeyId;
use crate::keystore::access;
use crate::keystore::access::lockout::LockoutCheck;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::action::Action;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::ops::keys::deletion;
use crate::keystore::ops::replicas::payload::Payload;
use crate::keystore::records::key::{KeyRecord, Operation};
use crate::keystore::records::regions::{Holder, Regions};
use crate::keystore::records::transfer::{Transfer, TransferKey, TransferKind};

/// What a replica has of its own. What is left out, it gets from the primary key.
#[derive(Debug, Clone, Default)]
pub struct ReplicaProperties {
    /// Free text.
    pub description: Option<String>,
    /// Tags.
    pub tags: Option<BTreeMap<String, String>>,
    /// Its key policy.
    pub policy: ReplicaPolicy,
    /// May that take from the caller the right to change it? For a replica in a keystore that is
    /// open here; of one that is received from a file it may not.
    pub lockout: LockoutCheck,
}

/// The key policy of a new replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ReplicaPolicy {
    /// That of the primary key.
    #[default]
    OfPrimary,
    /// The default one.
    Default,
    /// This one.
    Own(String),
}

impl ReplicaProperties {
    /// The record of a primary key, as its replica gets it.
    pub(in crate::keystore) fn apply(self, primary: KeyRecord) -> KeyRecord {
        KeyRecord {
            description: self.description.unwrap_or(primary.description),
            tags: self.tags.unwrap_or(primary.tags),
            policy: match self.policy {
                ReplicaPolicy::OfPrimary => primary.policy,
                ReplicaPolicy::Default => None,
                ReplicaPolicy::Own(policy) => Some(policy),
            },
            ..primary
        }
    }
}

impl Keystore {
    /// Seals a primary key for a new replica in the Region of `to`, and notes the replica.
    /// Errors: `Replica`, `KeyNotFound`, `Disabled`, `InvalidState`.
    pub fn replicate_key(
        &self,
        key: KeyId,
        to: &TransferKey,
        properties: ReplicaProperties,
    ) -> Result<Transfer, KeystoreError> {
        self.send(Action::ReplicateKey, key, to, TransferKind::Replica, |record, regions| {
            record.must_be_primary(key)?;
            if regions.own == to.region {
                return Err(ReplicaError::Exists { key, region: to.region.clone() }.into());
            }
            regions.add(&to.region);
            Ok(properties.apply(record.clone()))
        })
    }

    /// Seals the material of a primary key for one of its replicas, after a rotation.
    /// Errors: as [`Keystore::replicate_key`].
    pub fn sync_replica(&self, key: KeyId, to: &TransferKey) -> Result<Transfer, KeystoreError> {
        self.send(Action::ReplicateKey, key, to, TransferKind::Sync, |record, regions| {
            record.must_be_primary(key)?;
            must_know(key, regions, to)?;
            Ok(record.clone())
        })
    }

    /// Makes the replica in the Region of `to` the primary key, and this one a replica. Until the
    /// transfer is received there is no primary key; it may be sealed again, for the same keystore.
    /// Errors: as [`Keystore::replicate_key`].
    pub fn update_primary_region(
        &self,
        key: KeyId,
        to: &TransferKey,
    ) -> Result<Transfer, KeystoreError> {
        let (signing, taker) = (self.signing_key(), Holder::of(to));
        self.send(Action::UpdatePrimaryRegion, key, to, TransferKind::Primary, |record, regions| {
            // A transfer that was lost on its way is made again.
            if !regions.gave(&signing.public().to_pem(), &taker) {
                record.must_be_primary(key)?;
                must_know(key, regions, to)?;
                regions.hand_over(key, taker, &signing);
            }
            Ok(record.clone())
        })
    }

    /// A replica is gone. When it was the last one of a primary key that is to be deleted, its
    /// waiting period starts.
    /// Needs the permission that it takes to make one.
    /// Errors: `KeyNotFound`, `AccessDenied`, `Replica(NotMultiRegion)`.
    pub fn forget_replica(
        &self,
        key: KeyId,
        region: &str,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.announce_own(OwnOperation::ForgetReplica, Some(key))?;
        self.write(|writer| {
            let mut record = KeyRecord::find(writer, key)?;
            let (action, about) = (Action::ReplicateKey, Some((key, &record)));
            let request_context = RequestContext::to_region(action, region);
            access::authorise(writer, self.subject(), action, about, request_context)?;
            let regions = record.regions.as_mut().ok_or(ReplicaError::NotMultiRegion(key))?;
            regions.replicas.retain(|known| known != region);
            if regions.is_primary()
                && regions.replicas.is_empty()
                && let Some(days) = regions.waiting_days.take()
            {
                deletion::start_waiting(writer, &mut record, days, now.into());
            }
            record.save(writer, key)
        })?;
        self.record_own(OwnOperation::ForgetReplica, key, None)
    }

    fn send(
        &self,
        action: Action,
        key: KeyId,
        to: &TransferKey,
        kind: TransferKind,
        change: impl FnOnce(&KeyRecord, &mut Regions) -> Result<KeyRecord, KeystoreError>,
    ) -> Result<Transfer, KeystoreError> {
        let signing = self.signing_key();
        let request_context = RequestContext::to_region(action, &*to.region);
        let operation = Operation::Crypto;
        self.edit_with(action, &key.into(), operation, request_context, |writer, key, record| {
            let mut regions = record.regions.clone().ok_or(ReplicaError::NotMultiRegion(key))?;
            let mut sent = change(record, &mut regions)?;
            sent.regions = Some(regions.clone());
            let payload = Payload::of(writer, key, &sent)?;
            let from = regions.own.clone();
            record.regions = Some(regions);
            record.shared.extend(payload.material_ids());
            Transfer::seal(kind, key, from, to, &payload.to_bytes(), &signing)
        })
    }
}

fn must_know(key: KeyId, regions: &Regions, to: &TransferKey) -> Result<(), KeystoreError> {
    if regions.replicas.contains(&to.region) {
        return Ok(());
    }
    Err(ReplicaError::NoReplica { key, region: to.region.clone() }.into())
}
