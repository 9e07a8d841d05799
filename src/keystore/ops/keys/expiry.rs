//! Imported material that goes: on its date, or because somebody deletes it.
//!
//! A key is usable while all its materials are there; one that waits for a rotation does not
//! count. The row of a material that went stays without the material, and so does its id: only
//! the same bytes can come back.

use std::time::SystemTime;

use crate::id::{KeyId, MaterialId};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::spec::Origin;
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::UnixTime;
use crate::keystore::records::import_key::ImportKeyRecord;
use crate::keystore::records::key::{KeyRecord, key_id};
use crate::keystore::records::material::MaterialRecord;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Stored, Writer, tampered};

impl Keystore {
    /// Deletes imported material whose date has come, and import keys that are over; tells the
    /// materials. Such material is refused from its date on, whether this runs or not. Nothing is
    /// deleted just after the clock leapt: see [`Keystore::held_imports`].
    pub fn expire_imported(
        &self,
        now: SystemTime,
    ) -> Result<Vec<(KeyId, MaterialId)>, KeystoreError> {
        let now = now.into();
        let (keys, any) =
            self.read(|reader| Ok((ended_keys(reader, now)?, !over(reader, now)?.is_empty())))?;
        if keys.is_empty() && !any {
            return Ok(Vec::new());
        }
        if !self.read(|reader| reader.meta())?.clock_is_steady(now) {
            log::warn!("the clock leapt: imported material of {} keys is not deleted", keys.len());
            return Ok(Vec::new());
        }
        let operation = OwnOperation::DeleteExpiredKeyMaterial;
        keys.iter().try_for_each(|key| self.announce_own(operation, Some(*key)))?;
        let expired = self.write(|writer| {
            for id in over(writer, now)? {
                writer.delete(Table::ImportKey, &id)?;
            }
            writer.meta.scrub_due = true;
            let keys = writer.all::<KeyRecord>()?;
            let mut expired = Vec::new();
            for stored in keys.into_iter().filter(|stored| ended(&stored.record, now)) {
                expired.extend(expire(writer, stored, now)?);
            }
            Ok(expired)
        })?;
        self.scrub_if_due();
        let mut recorded = Ok(());
        for (key, material) in &expired {
            log::info!("imported material {material} of key {key} has expired and is deleted");
            recorded = recorded.and(self.record_own(operation, *key, Some(*material)));
        }
        recorded.map(|()| expired)
    }

    /// The keys with imported material whose date has come by a clock that leapt. It is deleted when
    /// somebody confirms the time, or the clock has gone on for a day.
    pub fn held_imports(&self, now: SystemTime) -> Result<Vec<KeyId>, KeystoreError> {
        let now = now.into();
        self.read(|reader| match reader.meta()?.clock_is_steady(now) {
            true => Ok(Vec::new()),
            false => ended_keys(reader, now),
        })
    }
}

/// Takes a material's bytes away; of one that was never current, everything.
pub(in crate::keystore) fn remove(
    writer: &mut Writer<'_>,
    key: KeyId,
    id: MaterialId,
    mut material: MaterialRecord,
) -> Result<(), KeystoreError> {
    writer.meta.scrub_due = true;
    if material.is_pending() {
        return writer.delete(Table::Material, id.as_bytes());
    }
    material.sealed.clear();
    if let Some(import) = &mut material.imported {
        import.valid_to = None;
    }
    writer.put(id.as_bytes(), Some(key), &material)
}

/// Brings the record of a key with imported material up to date with its materials.
pub(in crate::keystore) fn refresh_record(
    reader: &Reader<'_>,
    key: KeyId,
    record: &mut KeyRecord,
) -> Result<(), KeystoreError> {
    if record.origin != Origin::External {
        return Ok(());
    }
    let mut materials = reader.of_key::<MaterialRecord>(key)?;
    record.expiry = materials.iter().filter_map(|material| material.record.valid_to()).min();
    materials.retain(|material| !material.record.is_pending());
    record.valid_to = materials.iter().filter_map(|material| material.record.valid_to()).min();
    let complete = record.current_material().is_some()
        && materials.iter().all(|material| !material.record.sealed.is_empty());
    record.state = match (record.state, complete) {
        (KeyState::PendingImport, true) => KeyState::Enabled,
        (KeyState::Enabled | KeyState::Disabled, false) => KeyState::PendingImport,
        (state, _) => state,
    };
    Ok(())
}

/// The id of a material's row.
pub(in crate::keystore) fn material_id(
    stored: &Stored<MaterialRecord>,
) -> Result<MaterialId, KeystoreError> {
    let id = stored.id.as_slice().try_into().map(MaterialId::from_bytes);
    id.map_err(|_| tampered(Table::Material, &stored.id))
}

fn expire(
    writer: &mut Writer<'_>,
    stored: Stored<KeyRecord>,
    now: UnixTime,
) -> Result<Vec<(KeyId, MaterialId)>, KeystoreError> {
    let (key, mut record) = (key_id(&stored.id)?, stored.record);
    let mut expired = Vec::new();
    for material in writer.of_key::<MaterialRecord>(key)? {
        if material.record.valid_to().is_some_and(|end| end <= now) {
            let id = material_id(&material)?;
            remove(writer, key, id, material.record)?;
            expired.push((key, id));
        }
    }
    refresh_record(writer, key, &mut record)?;
    record.save(writer, key)?;
    Ok(expired)
}

fn ended_keys(reader: &Reader<'_>, now: UnixTime) -> Result<Vec<KeyId>, KeystoreError> {
    let keys = reader.all::<KeyRecord>()?;
    keys.iter().filter(|key| ended(&key.record, now)).map(|key| key_id(&key.id)).collect()
}

fn ended(record: &KeyRecord, now: UnixTime) -> bool {
    record.expiry.is_some_and(|end| end <= now)
}

/// The import keys that are over.
fn over(reader: &Reader<'_>, now: UnixTime) -> Result<Vec<Vec<u8>>, KeystoreError> {
    let keys = reader.all::<ImportKeyRecord>()?.into_iter();
    Ok(keys.filter(|key| key.record.valid_to <= now).map(|key| key.id).collect())
}
