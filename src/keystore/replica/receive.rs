//! The destination: transfer keys, and keys that arrive.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::payload::Payload;
use super::seal::{Transfer, TransferKey, TransferKind, fingerprint, identity};
use super::{DEFAULT_REGION, Holder, Regions, ReplicaError};
use crate::crypto::asym::{KeyKind, PrivateKey};
use crate::crypto::random;
use crate::id::{KeyId, MaterialId};
use crate::keystore::Keystore;
use crate::keystore::access;
use crate::keystore::action::Action;
use crate::keystore::asked::Asked;
use crate::keystore::error::KeystoreError;
use crate::keystore::import_expiry;
use crate::keystore::key::{KeyMetadata, KeyRecord, KeyState, Operation, permit};
use crate::keystore::material;
use crate::keystore::record::{Reader, Record, Writer, base64};
use crate::keystore::root::place;
use crate::keystore::store::Table;
use crate::keystore::time::{DAY, UnixTime};

/// Which keystores a key is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The one with this identity.
    Identity(String),
    /// The one that is known to have the primary key; for a key that is new here, none.
    Known,
    /// Whichever sealed it: somebody has compared the fingerprints.
    Compared,
}

/// A key that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What the transfer was for.
    pub kind: TransferKind,
    /// The key as it is here now.
    pub metadata: KeyMetadata,
}

/// The stored half of a transfer key.
#[derive(Serialize, Deserialize)]
struct TransferRecord {
    created: UnixTime,
    /// PKCS #8, sealed once more, so that the bytes of the row never hold it.
    #[serde(with = "base64")]
    private: Vec<u8>,
}

impl Record for TransferRecord {
    const TABLE: Table = Table::TransferKey;
}

impl Keystore {
    /// A key that another keystore can seal one KMS key for, within a day.
    pub fn create_transfer_key(&self, now: SystemTime) -> Result<TransferKey, KeystoreError> {
        let now = UnixTime::from(now);
        let id = MaterialId::from_bytes(random::id16()?);
        let private = PrivateKey::generate(KeyKind::P384)?;
        let public = TransferKey::sign(id, self.region()?, &private, &self.signing_key())?;
        self.write(|writer| {
            for old in writer.all::<TransferRecord>()? {
                if now.since(old.record.created) > DAY {
                    writer.delete(Table::TransferKey, &old.id)?;
                }
            }
            let sealed = writer.root().seal_row(&private_place(id), &private.to_pkcs8()?)?;
            let record = TransferRecord { created: now, private: sealed };
            writer.put(id.as_bytes(), None, &record)
        })?;
        Ok(public)
    }

    /// Takes a key that was sealed for this keystore: all of it, in one transaction, and once. A
    /// key that is here takes nothing but what comes from its primary key, whatever `trust` says.
    /// Errors: `Replica`, `AccessDenied`, `InvalidState`, `LimitExceeded`.
    pub fn receive_key(
        &self,
        transfer: &Transfer,
        trust: &Trust,
        now: SystemTime,
    ) -> Result<Received, KeystoreError> {
        let action = match transfer.kind {
            TransferKind::Replica => Action::CreateKey,
            TransferKind::Sync => Action::ReplicateKey,
            TransferKind::Primary => Action::UpdatePrimaryRegion,
        };
        let metadata = self.operate(action, None, |touched| {
            touched.key = Some(transfer.key_id);
            self.write(|writer| {
                let known = writer.get::<KeyRecord>(transfer.key_id.as_bytes())?;
                let about = known.as_ref().filter(|_| transfer.kind != TransferKind::Replica);
                let about = about.map(|record| (transfer.key_id, record));
                access::authorise(writer, &self.caller, action, about, Asked::default())?;
                let private = take_private(writer, transfer, now.into())?;
                let payload =
                    Payload::from_bytes(&transfer.open(&private, &identity(writer.root()))?)?;
                check_trust(transfer, trust)?;
                let mut record = merge(writer, transfer, &payload, known)?;
                payload.store_materials(writer, transfer.key_id)?;
                import_expiry::settle(writer, transfer.key_id, &mut record)?;
                record.save(writer, transfer.key_id)?;
                writer.meta.scrub_due = true;
                Ok(record.metadata(transfer.key_id))
            })
        })?;
        self.scrub_if_due()?;
        log::info!("received key {} from {}", transfer.key_id, transfer.from);
        Ok(Received { kind: transfer.kind, metadata })
    }
}

/// The private half of the transfer key, which is used up.
fn take_private(
    writer: &mut Writer<'_>,
    transfer: &Transfer,
    now: UnixTime,
) -> Result<PrivateKey, KeystoreError> {
    let id = transfer.transfer_id;
    let record = writer.get::<TransferRecord>(id.as_bytes())?;
    let record = record.filter(|record| now.since(record.created) <= DAY);
    let record = record.ok_or(ReplicaError::NotExpected)?;
    writer.delete(Table::TransferKey, id.as_bytes())?;
    let opened = writer.root().open_row(&private_place(id), &record.private)?;
    Ok(PrivateKey::from_pkcs8(KeyKind::P384, &opened)?)
}

/// Errors: `Replica(Stranger)`.
fn check_trust(transfer: &Transfer, trust: &Trust) -> Result<(), KeystoreError> {
    let trusted = match trust {
        Trust::Identity(identity) => identity.trim() == transfer.identity.trim(),
        // Of a key that is here it is checked anyway.
        Trust::Known => transfer.kind != TransferKind::Replica,
        Trust::Compared => true,
    };
    if trusted {
        return Ok(());
    }
    Err(ReplicaError::Stranger { found: fingerprint(&transfer.identity) }.into())
}

/// The record as it is here after the transfer.
fn merge(
    writer: &mut Writer<'_>,
    transfer: &Transfer,
    payload: &Payload,
    known: Option<KeyRecord>,
) -> Result<KeyRecord, KeystoreError> {
    let key = transfer.key_id;
    let theirs = &payload.regions;
    let here = Holder { region: own_region(writer)?, identity: identity(writer.root()) };
    let (mut record, role) = match (transfer.kind, known) {
        (TransferKind::Replica, None) => {
            comes_from_primary(transfer, theirs)?;
            (arrive(writer, key, payload)?, theirs.clone())
        }
        (TransferKind::Replica, Some(_)) => {
            return Err(ReplicaError::Exists { key, region: here.region }.into());
        }
        (TransferKind::Sync | TransferKind::Primary, Some(record)) => {
            let mut role = record.regions.clone().ok_or(ReplicaError::NotMultiRegion(key))?;
            role.follow(transfer, theirs, &here)?;
            (record, role)
        }
        (TransferKind::Sync | TransferKind::Primary, None) => {
            return Err(ReplicaError::NoReplica { key, region: here.region }.into());
        }
    };
    if transfer.kind == TransferKind::Primary {
        // A primary key that goes would leave its replicas without one.
        permit(Operation::Metadata, key, record.state)?;
    }
    let replicas = theirs.replicas.clone();
    let regions = Regions { own: here.region, replicas, waiting_days: None, ..role };
    record.current = payload.record.current;
    record.rotation = payload.record.rotation;
    record.on_demand_rotations = payload.record.on_demand_rotations;
    record.regions = Some(regions);
    Ok(record)
}

/// A key that is new here. Its row comes before those that refer to it.
fn arrive(
    writer: &mut Writer<'_>,
    key: KeyId,
    payload: &Payload,
) -> Result<KeyRecord, KeystoreError> {
    crate::keystore::manage::check_quota(writer)?;
    let record = KeyRecord { state: KeyState::Enabled, deletion: None, ..payload.record.clone() };
    record.save(writer, key)?;
    material::create_wrapping(writer, key)?;
    Ok(record)
}

/// A new replica knows as its primary key's keystore the one that it came from.
/// Errors: `Replica(NotPrimary)`.
fn comes_from_primary(transfer: &Transfer, theirs: &Regions) -> Result<(), ReplicaError> {
    if theirs.primary == Holder::sender(transfer) {
        return Ok(());
    }
    let (from, primary) = (transfer.from.clone(), theirs.primary.region.clone());
    Err(ReplicaError::NotPrimary { key: transfer.key_id, from, primary })
}

fn own_region(reader: &Reader<'_>) -> Result<String, KeystoreError> {
    Ok(reader.meta()?.region.unwrap_or_else(|| DEFAULT_REGION.to_owned()))
}

fn private_place(id: MaterialId) -> Vec<u8> {
    place(&[b"transfer key", id.as_bytes()])
}
