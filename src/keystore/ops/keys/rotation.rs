//! Rotation: new material for new ciphertexts; the old one is kept for old ciphertexts.

use std::time::SystemTime;

use serde::Serialize;

use crate::id::{KeyId, MaterialId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::{KeystoreError, Quota};
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{KeyArn, KeyRef, text};
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::spec::{ExpirationModel, ImportState, KeySpec, Origin};
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::UnixTime;
use crate::keystore::ops::keys::import;
use crate::keystore::policy::Fact;
use crate::keystore::records::key::{KeyRecord, Operation, key_id, wrong_origin};
use crate::keystore::records::material::{self, MaterialOrigin, MaterialRecord};
use crate::keystore::records::rotation::Schedule;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Stored, Writer, tampered};

/// The period that is used when none is named. Units: days.
const DEFAULT_PERIOD: u16 = 365;

/// What GetKeyRotationStatus answers. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotationStatus {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// Does it rotate by itself? Not while it waits for its deletion.
    pub key_rotation_enabled: bool,
    /// Units: days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_period_in_days: Option<u16>,
    /// When it rotates next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rotation_date: Option<UnixTime>,
    /// On-demand rotations so far, of 25.
    pub on_demand_rotations: usize,
}

/// Is a material the one that new ciphertexts are made with?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MaterialState {
    /// Wraps and unwraps.
    Current,
    /// Unwraps only.
    NonCurrent,
    /// Imported, and to become current by the next rotation on demand.
    PendingRotation,
}

/// A material as ListKeyRotations shows it. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Rotation {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// The material.
    #[serde(with = "text")]
    pub key_material_id: MaterialId,
    /// Is it current?
    pub key_material_state: MaterialState,
    /// When it was made.
    pub rotation_date: UnixTime,
    /// Why it was made.
    pub rotation_type: MaterialOrigin,
    /// Is it there? Of imported material only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_state: Option<ImportState>,
    /// What was said of it when it was imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_material_description: Option<String>,
    /// Does it have an end? Of imported material only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<ExpirationModel>,
    /// When it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<UnixTime>,
}

impl Keystore {
    /// Lets a key rotate by itself every `period_days` (90 to 2560, by default 365).
    /// Errors: `Validation`, `KeyNotFound`, `Disabled`, `InvalidState`.
    pub fn enable_key_rotation(
        &self,
        key: &KeyRef,
        period_days: Option<u16>,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        let period = period_days.unwrap_or(DEFAULT_PERIOD);
        let request_context =
            RequestContext::default().with(Fact::RotationPeriodInDays, period.to_string());
        let action = Action::EnableKeyRotation;
        self.edit_with(action, key, Operation::Rotation, request_context, |_, key, record| {
            check_rotates(key, record)?;
            check_origin(key, record)?;
            record.must_be_primary(key)?;
            let schedule = Schedule::starting(period, now.into())?;
            // The same period again must not put the next rotation off.
            if record.rotation.is_none_or(|old| old.period_days != period) {
                record.rotation = Some(schedule);
            }
            Ok(())
        })
    }

    /// Ends the automatic rotation of a key.
    /// Errors: `KeyNotFound`, `Disabled`, `InvalidState`.
    pub fn disable_key_rotation(&self, key: &KeyRef) -> Result<(), KeystoreError> {
        self.edit(Action::DisableKeyRotation, key, Operation::Rotation, |_, key, record| {
            check_rotates(key, record)?;
            check_origin(key, record)?;
            record.must_be_primary(key)?;
            record.rotation = None;
            Ok(())
        })
    }

    /// Whether and when a key rotates by itself.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn get_key_rotation_status(&self, key: &KeyRef) -> Result<RotationStatus, KeystoreError> {
        let (key, record) = self.view(Action::GetKeyRotationStatus, key, |_, key, record| {
            check_rotates(key, &record)?;
            Ok((key, record))
        })?;
        let schedule = record.rotation.filter(|_| record.state != KeyState::PendingDeletion);
        Ok(RotationStatus {
            key_id: key,
            key_rotation_enabled: schedule.is_some(),
            rotation_period_in_days: schedule.map(|schedule| schedule.period_days),
            next_rotation_date: schedule.map(|schedule| schedule.next),
            on_demand_rotations: record.on_demand_rotations,
        })
    }

    /// Rotates a key now, at most 25 times in its life. Its schedule stays. A key with imported
    /// material moves on to the material that was imported for this.
    /// Errors: `NothingToRotate`, `LimitExceeded`, `KeyNotFound`, `Disabled`, `InvalidState`.
    pub fn rotate_key_on_demand(
        &self,
        key: &KeyRef,
        now: SystemTime,
    ) -> Result<MaterialId, KeystoreError> {
        let (key, material) = self.edit(
            Action::RotateKeyOnDemand,
            key,
            Operation::Rotation,
            |writer, key, record| {
                check_rotates(key, record)?;
                record.must_be_primary(key)?;
                let quota = Quota::OnDemandRotations;
                if record.on_demand_rotations >= quota.limit() {
                    return Err(KeystoreError::LimitExceeded(quota));
                }
                if record.origin == Origin::External {
                    import::rotate(writer, key, record, now.into())?;
                } else {
                    let bytes = material::fresh(record.spec)?;
                    let (origin, now) = (MaterialOrigin::OnDemand, now.into());
                    record.current = material::create(writer, key, &bytes, origin, now)?;
                }
                record.on_demand_rotations += 1;
                Ok((key, record.current))
            },
        )?;
        self.outwait_caches();
        log::info!("rotated key {key} on demand, material {material}");
        Ok(material)
    }

    /// A key's materials, oldest first: the first one, and one for each rotation since.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn list_key_rotations(&self, key: &KeyRef) -> Result<Vec<Rotation>, KeystoreError> {
        self.view(Action::ListKeyRotations, key, |reader, key, record| {
            check_rotates(key, &record)?;
            let current = record.current;
            let mut stored = reader.of_key::<MaterialRecord>(key)?;
            stored.sort_by_key(|material| material.record.sequence);
            stored.iter().map(|material| rotation(key, current, material)).collect()
        })
    }

    /// Rotates every key whose schedule has come, once each, and tells which. Nothing else in
    /// this module rotates keys by date: the daemon calls this from time to time.
    pub fn run_due_rotations(
        &self,
        now: SystemTime,
    ) -> Result<Vec<(KeyId, MaterialId)>, KeystoreError> {
        let now = now.into();
        self.bring_strays_back(now)?;
        let waiting = self.read(|reader| {
            let keys = reader.all::<KeyRecord>()?.into_iter();
            keys.filter(|key| key.record.rotation_due(now)).map(|key| key_id(&key.id)).collect()
        });
        let waiting: Vec<KeyId> = waiting?;
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        waiting
            .iter()
            .try_for_each(|key| self.announce_own(OwnOperation::RotateKey, Some(*key)))?;
        let announced =
            |key: &Stored<KeyRecord>| waiting.iter().any(|id| *id.as_bytes() == *key.id);
        let rotated = self.write(|writer| {
            let keys = writer.all::<KeyRecord>()?.into_iter();
            keys.filter(|key| key.record.rotation_due(now) && announced(key))
                .map(|key| rotate_by_date(writer, key, now))
                .collect::<Result<Vec<_>, _>>()
        })?;
        if !rotated.is_empty() {
            self.outwait_caches();
        }
        for (key, material) in &rotated {
            log::info!("rotated key {key} by its schedule, material {material}");
            self.record_own(OwnOperation::RotateKey, *key, Some(*material))?;
        }
        Ok(rotated)
    }

    /// A clock that was far ahead for a while has put rotations off by as much. Once it is steady again,
    /// the next is due within its period.
    fn bring_strays_back(&self, now: UnixTime) -> Result<(), KeystoreError> {
        let stray =
            |key: &Stored<KeyRecord>| key.record.rotation.is_some_and(|it| it.is_stray(now));
        let any = self.read(|reader| {
            Ok(reader.meta()?.clock_is_steady(now) && reader.all()?.iter().any(stray))
        })?;
        if !any {
            return Ok(());
        }
        self.write(|writer| {
            for stored in writer.all()?.into_iter().filter(stray) {
                let (key, mut record) = (key_id(&stored.id)?, stored.record);
                record.rotation = record.rotation.map(|old| old.counted_from(now));
                record.save(writer, key)?;
            }
            Ok(())
        })
    }
}

/// Only symmetric keys rotate, and none that a token keeps.
/// Errors: `UnsupportedOperation`.
fn check_rotates(key: KeyId, record: &KeyRecord) -> Result<(), KeystoreError> {
    if record.origin == Origin::AwsCloudHsm {
        return Err(wrong_origin(key, record));
    }
    if record.spec == KeySpec::SymmetricDefault {
        return Ok(());
    }
    let (arn, spec) = (KeyArn(key), record.spec);
    let problem = format!("{arn} key spec is {spec} which is not valid for this operation.");
    Err(KeystoreError::UnsupportedOperation(problem))
}

/// Only material that the keystore makes itself rotates by date.
/// Errors: `UnsupportedOperation`, in AWS's words.
fn check_origin(key: KeyId, record: &KeyRecord) -> Result<(), KeystoreError> {
    if record.origin == Origin::AwsKms { Ok(()) } else { Err(wrong_origin(key, record)) }
}

fn rotate_by_date(
    writer: &mut Writer<'_>,
    stored: Stored<KeyRecord>,
    now: UnixTime,
) -> Result<(KeyId, MaterialId), KeystoreError> {
    let (key, mut record) = (key_id(&stored.id)?, stored.record);
    let bytes = material::fresh(record.spec)?;
    record.current = material::create(writer, key, &bytes, MaterialOrigin::Automatic, now)?;
    // Counted from now: rotations that were missed are not made up for.
    record.rotation = record.rotation.map(|old| old.counted_from(now));
    record.save(writer, key)?;
    Ok((key, record.current))
}

fn rotation(
    key: KeyId,
    current: MaterialId,
    stored: &Stored<MaterialRecord>,
) -> Result<Rotation, KeystoreError> {
    let id = stored.id.as_slice().try_into().map(MaterialId::from_bytes);
    let id = id.map_err(|_| tampered(Table::Material, &stored.id))?;
    let record = &stored.record;
    let import = record.imported.as_ref();
    Ok(Rotation {
        key_id: key,
        key_material_id: id,
        key_material_state: match id == current {
            true => MaterialState::Current,
            false if record.is_pending() => MaterialState::PendingRotation,
            false => MaterialState::NonCurrent,
        },
        rotation_date: record.created,
        rotation_type: record.origin,
        import_state: import.map(|_| match record.sealed.is_empty() {
            true => ImportState::PendingImport,
            false => ImportState::Imported,
        }),
        key_material_description: import.and_then(|import| import.description.clone()),
        expiration_model: import.map(|import| match import.valid_to {
            Some(_) => ExpirationModel::KeyMaterialExpires,
            None => ExpirationModel::KeyMaterialDoesNotExpire,
        }),
        valid_to: record.valid_to(),
    })
}
