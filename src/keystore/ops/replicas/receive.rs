//! The destination: transfer keys, and keys that arrive.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::crypto::hybrid::PrivateKey;
use crate::crypto::random;
use crate::id::{KeyId, MaterialId};
use crate::keystore::access::lockout::{self, LockoutCheck};
use crate::keystore::access::request::RequestContext;
use crate::keystore::access::rules::Subject;
use crate::keystore::access::{self};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::action::Action;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::region::DEFAULT_REGION;
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::{DAY, UnixTime};
use crate::keystore::ops::keys::{expiry, manage};
use crate::keystore::ops::replicas::payload::Payload;
use crate::keystore::policy::Fact;
use crate::keystore::records::key::{KeyMetadata, KeyRecord, Operation, permit};
use crate::keystore::records::material;
use crate::keystore::records::regions::{Holder, Regions};
use crate::keystore::records::transfer::{
    Transfer, TransferKey, TransferKind, TransferRecord, fingerprint, identity,
};
use crate::keystore::storage::root::encode_parts;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Writer};

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
    /// Its key policy here.
    pub policy: String,
    /// Its tags here.
    pub tags: BTreeMap<String, String>,
}

/// A transfer key with its private half, in memory only.
pub(in crate::keystore) struct NewTransferKey {
    pub(in crate::keystore) public: TransferKey,
    pub(in crate::keystore) private: PrivateKey,
}

impl Keystore {
    /// A key that another keystore can seal one KMS key for, within a day.
    pub fn create_transfer_key(&self, now: SystemTime) -> Result<TransferKey, KeystoreError> {
        let now = UnixTime::from(now);
        self.operate_own(OwnOperation::CreateTransferKey, |details| {
            let NewTransferKey { public, private } = self.draft_transfer_key()?;
            let id = public.transfer_id;
            details.detail = Some(format!("transfer {id}"));
            self.write(|writer| {
                for old in writer.all::<TransferRecord>()? {
                    if now.since(old.record.created) > DAY {
                        writer.delete(Table::TransferKey, &old.id)?;
                    }
                }
                let sealed = writer.root().seal_row(&private_aad(id), private.expose())?;
                let record = TransferRecord { created: now, private: sealed };
                writer.put(id.as_bytes(), None, &record)
            })?;
            Ok(public)
        })
    }

    /// A transfer key that is not stored.
    pub(in crate::keystore) fn draft_transfer_key(&self) -> Result<NewTransferKey, KeystoreError> {
        let id = MaterialId::from_bytes(random::id16()?);
        let private = PrivateKey::generate()?;
        let public = TransferKey::sign(id, self.region()?, &private, &self.signing_key())?;
        Ok(NewTransferKey { public, private })
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
        let private = |writer: &mut Writer<'_>| take_private(writer, transfer, now.into());
        self.receive(transfer, trust, LockoutCheck::default(), private)
    }

    /// As [`Keystore::receive_key`], with a transfer key from elsewhere than the keystore.
    pub(in crate::keystore) fn receive(
        &self,
        transfer: &Transfer,
        trust: &Trust,
        lockout: LockoutCheck,
        private: impl FnOnce(&mut Writer<'_>) -> Result<PrivateKey, KeystoreError>,
    ) -> Result<Received, KeystoreError> {
        let (key, kind) = (transfer.key_id, transfer.kind);
        let record = self.operate(kind.action(), None, |details| {
            details.key = Some(key);
            self.write(|writer| {
                let known = match kind {
                    TransferKind::Replica => None,
                    _ => Some(admit_news(writer, self.subject(), kind, key)?),
                };
                let private = private(writer)?;
                let opened = transfer.open(&private, &identity(writer.root()))?;
                let payload = Payload::from_bytes(&opened)?;
                check_trust(transfer, trust)?;
                let mut record = match known {
                    None => arrive(writer, self.subject(), transfer, &payload, lockout)?,
                    Some(record) => renew(writer, transfer, &payload, record)?,
                };
                payload.store_materials(writer, key)?;
                record.shared.extend(payload.material_ids());
                expiry::refresh_record(writer, key, &mut record)?;
                record.save(writer, key)?;
                writer.meta.scrub_due = true;
                Ok(record)
            })
        })?;
        if kind != TransferKind::Replica {
            self.outwait_caches();
        }
        self.scrub_if_due();
        log::info!("received key {key} from {}", transfer.from);
        let (metadata, policy) = (record.metadata(key), record.policy_text().to_owned());
        Ok(Received { kind, metadata, policy, tags: record.tags })
    }
}

/// May the caller bring this key here, where it is new? Gives `record` its policy.
/// Errors: `AccessDenied`, `Replica(Exists)`, `LimitExceeded`, `Validation`, `Tag`,
/// `MalformedPolicy`, `Lockout`.
pub(in crate::keystore) fn admit_replica(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    key: KeyId,
    record: &mut KeyRecord,
    lockout: LockoutCheck,
) -> Result<(), KeystoreError> {
    access::authorise(reader, subject, Action::CreateKey, None, request_context(record, lockout))?;
    manage::may_tag(reader, subject, None, &record.tags)?;
    if reader.rows().get(Table::Key, key.as_bytes())?.is_some() {
        return Err(ReplicaError::Exists { key, region: own_region(reader)? }.into());
    }
    manage::check_quota(reader)?;
    manage::check_description(&record.description)?;
    manage::check_tags(&record.tags)?;
    match record.policy.take() {
        Some(policy) => lockout::set(reader, subject, key, record, &policy, lockout),
        None => Ok(()),
    }
}

/// May the caller let a replica that is here take news of its primary key?
/// Errors: `AccessDenied`, `Replica(NoReplica)`, `InvalidState`.
pub(in crate::keystore) fn admit_news(
    reader: &Reader<'_>,
    subject: Subject<'_>,
    kind: TransferKind,
    key: KeyId,
) -> Result<KeyRecord, KeystoreError> {
    let known = reader.get::<KeyRecord>(key.as_bytes())?;
    let about = known.as_ref().map(|record| (key, record));
    let request_context = RequestContext::to_region(kind.action(), own_region(reader)?);
    access::authorise(reader, subject, kind.action(), about, request_context)?;
    let Some(record) = known else {
        return Err(ReplicaError::NoReplica { key, region: own_region(reader)? }.into());
    };
    if kind == TransferKind::Primary {
        // A primary key that goes would leave its replicas without one.
        permit(Operation::Metadata, key, record.state)?;
    }
    Ok(record)
}

/// What policies may ask about a replica that is made: what they ask about a key that is.
fn request_context(record: &KeyRecord, lockout: LockoutCheck) -> RequestContext<'_> {
    let request_context = lockout.request_context().with(Fact::KeySpec, record.spec.as_str());
    let request_context = request_context.with(Fact::KeyUsage, record.usage.as_str());
    let request_context = request_context
        .with(Fact::KeyOrigin, record.origin.as_str())
        .with(Fact::MultiRegion, "true");
    let request_context = request_context.with(Fact::MultiRegionKeyType, "REPLICA");
    RequestContext { tags: Some(&record.tags), ..request_context }
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
    let opened = writer.root().open_row(&private_aad(id), &record.private)?;
    Ok(PrivateKey::from_bytes(&opened)?)
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

/// A key that is new here. Its row comes before those that refer to it.
fn arrive(
    writer: &mut Writer<'_>,
    subject: Subject<'_>,
    transfer: &Transfer,
    payload: &Payload,
    lockout: LockoutCheck,
) -> Result<KeyRecord, KeystoreError> {
    let (key, theirs) = (transfer.key_id, &payload.regions);
    let mut record =
        KeyRecord { state: KeyState::Enabled, deletion: None, ..payload.record.clone() };
    admit_replica(writer, subject, key, &mut record, lockout)?;
    comes_from_primary(transfer, theirs)?;
    let own = own_region(writer)?;
    record.regions = Some(Regions { own, waiting_days: None, ..theirs.clone() });
    record.save(writer, key)?;
    material::create_wrapping(writer, key)?;
    Ok(record)
}

/// A key that is here, with what its primary key decides.
fn renew(
    reader: &Reader<'_>,
    transfer: &Transfer,
    payload: &Payload,
    mut record: KeyRecord,
) -> Result<KeyRecord, KeystoreError> {
    let here = Holder { region: own_region(reader)?, identity: identity(reader.root()) };
    let not_of_several = ReplicaError::NotMultiRegion(transfer.key_id);
    let mut regions = record.regions.take().ok_or(not_of_several)?;
    regions.follow(transfer, &payload.regions, &here)?;
    regions.own = here.region;
    regions.replicas.clone_from(&payload.regions.replicas);
    regions.waiting_days = None;
    record.regions = Some(regions);
    record.current = payload.record.current;
    record.rotation = payload.record.rotation;
    record.on_demand_rotations = payload.record.on_demand_rotations;
    // Neither side forgets what the other has noted.
    record.programs.extend(&payload.record.programs);
    record.shared.extend(&payload.record.shared);
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

fn private_aad(id: MaterialId) -> Vec<u8> {
    encode_parts(&[b"transfer key", id.as_bytes()])
}
