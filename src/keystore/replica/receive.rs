//! The destination: transfer keys, and keys that arrive.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::payload::Payload;
use super::seal::{Transfer, TransferKey, TransferKind, fingerprint};
use super::{DEFAULT_REGION, Regions, ReplicaError};
use crate::crypto::asym::{KeyKind, PrivateKey};
use crate::crypto::random;
use crate::id::{KeyId, MaterialId};
use crate::keystore::Keystore;
use crate::keystore::access;
use crate::keystore::action::Action;
use crate::keystore::asked::Asked;
use crate::keystore::error::KeystoreError;
use crate::keystore::key::{KeyMetadata, KeyRecord, KeyState};
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
    /// The one that the key came from before; for a key that is new here, none.
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

    /// Takes a key that was sealed for this keystore: all of it, in one transaction, and once.
    /// Errors: `Replica`, `AccessDenied`, `LimitExceeded`.
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
        let own_identity = self.identity();
        let metadata = self.operate(action, None, |touched| {
            touched.key = Some(transfer.key_id);
            self.write(|writer| {
                let known = writer.get::<KeyRecord>(transfer.key_id.as_bytes())?;
                let about = known.as_ref().filter(|_| transfer.kind != TransferKind::Replica);
                let about = about.map(|record| (transfer.key_id, record));
                access::authorise(writer, &self.caller, action, about, Asked::default())?;
                let private = take_private(writer, transfer, now.into())?;
                let payload = Payload::from_bytes(&transfer.open(&private, &own_identity)?)?;
                check_trust(transfer, trust, known.as_ref())?;
                let record = merge(writer, transfer, &payload, known)?;
                record.save(writer, transfer.key_id)?;
                payload.store_materials(writer, transfer.key_id)?;
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
fn check_trust(
    transfer: &Transfer,
    trust: &Trust,
    known: Option<&KeyRecord>,
) -> Result<(), KeystoreError> {
    let pinned = known
        .and_then(|record| record.regions.as_ref())
        .and_then(|regions| regions.identities.get(&transfer.from));
    let trusted = match trust {
        Trust::Identity(identity) => identity.trim() == transfer.identity.trim(),
        Trust::Known => pinned == Some(&transfer.identity),
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
    let own = own_region(writer)?;
    let identities = known.as_ref().and_then(|record| record.regions.clone());
    let mut regions = Regions {
        own: own.clone(),
        waiting_days: None,
        identities: identities.map(|regions| regions.identities).unwrap_or_default(),
        ..payload.regions.clone()
    };
    regions.identities.insert(transfer.from.clone(), transfer.identity.clone());
    let mut record = match (transfer.kind, known) {
        (TransferKind::Replica, None) => arrive(writer, key, payload)?,
        (TransferKind::Replica, Some(_)) => {
            return Err(ReplicaError::Exists { key, region: own }.into());
        }
        (TransferKind::Sync | TransferKind::Primary, Some(record)) => {
            related(key, &record, &regions)?;
            record
        }
        (TransferKind::Sync | TransferKind::Primary, None) => {
            return Err(ReplicaError::NoReplica { key, region: own }.into());
        }
    };
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

/// A key is overwritten only by the primary key that it is a replica of.
/// Errors: `Replica`.
fn related(key: KeyId, here: &KeyRecord, theirs: &Regions) -> Result<(), KeystoreError> {
    let ours = here.regions.as_ref().ok_or(ReplicaError::NotMultiRegion(key))?;
    if ours.is_primary() && theirs.primary != ours.own {
        return Err(ReplicaError::Exists { key, region: ours.own.clone() }.into());
    }
    Ok(())
}

fn own_region(reader: &Reader<'_>) -> Result<String, KeystoreError> {
    Ok(reader.meta()?.region.unwrap_or_else(|| DEFAULT_REGION.to_owned()))
}

fn private_place(id: MaterialId) -> Vec<u8> {
    place(&[b"transfer key", id.as_bytes()])
}
