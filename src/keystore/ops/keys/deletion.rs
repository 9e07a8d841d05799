//! Destroying keys and materials: slowly, on purpose, and for good.
//!
//! Time decides about destruction, and clocks are wrong at times. The keystore keeps the latest
//! time it accepted. A clock that was set back changes nothing: what had expired stays expired.
//! While keys wait for their deletion, time passes only as far as the clock was seen to go on, from
//! one look to the next: a leap of more than two days counts for nothing, whether the clock is wrong
//! or the machine was off. So no key goes before its waiting period was lived through. What has
//! expired by the clock alone is held until then, or until somebody confirms the time. A confirmed
//! time also replaces one that was accepted by mistake. What can be made again, as imported material
//! and grants that have an end, is held until the clock has gone on for a day from where it leapt to,
//! or is confirmed.

use std::collections::BTreeSet;
use std::time::SystemTime;

use serde::Serialize;

use crate::id::{KeyId, MaterialId, VolumeId};
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::error::{InUse, KeystoreError};
use crate::keystore::model::action::Action;
use crate::keystore::model::id::{KeyRef, text};
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::state::KeyState;
use crate::keystore::model::time::{ClockRun, DAY, UnixTime};
use crate::keystore::ops::keys::expiry;
use crate::keystore::policy::Fact;
use crate::keystore::records::access_key::AccessKeyRecord;
use crate::keystore::records::key::{KeyRecord, Operation, PendingDeletion, key_id};
use crate::keystore::records::material;
use crate::keystore::storage::rows::{self, Table};
use crate::keystore::storage::sealed::{self, Meta, Reader, Stored, Writer};

/// What ScheduleKeyDeletion answers. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduledDeletion {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// When it will be destroyed; not known while it waits for its replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<UnixTime>,
    /// PendingDeletion, or PendingReplicaDeletion for a primary key with replicas.
    pub key_state: KeyState,
    /// Units: days.
    pub pending_window_in_days: u16,
}

/// Whether a clock that leapt is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockTrust {
    /// Only if it advanced by at most two days since it was last seen; otherwise that time counts for
    /// nothing.
    Steps,
    /// Somebody looked at it and says that it is right, whatever was believed before.
    Confirmed,
}

/// What [`Keystore::delete_expired`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Keys that are destroyed now, with all their material.
    #[serde(serialize_with = "texts")]
    pub deleted: Vec<KeyId>,
    /// Keys whose date has come, but whose waiting period was not observed to pass: they are kept.
    #[serde(serialize_with = "texts")]
    pub held: Vec<KeyId>,
}

/// What still refers to a material, counted by those who can read headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferenceReport {
    /// The volumes that were scanned completely.
    pub scanned: BTreeSet<VolumeId>,
    /// Headers that refer to the material.
    pub references: u64,
    /// Headers that could not be read.
    pub unreadable: u64,
    /// Somebody says that no vault on another host needs it.
    pub other_hosts_checked: bool,
    /// Somebody says that no ciphertext of a program needs it.
    pub ciphertexts_checked: bool,
}

impl Keystore {
    /// Starts the waiting period of 7 to 30 days (by default 30) after which a key is destroyed.
    /// The key cannot be used meanwhile. Keys are not named by alias here, as in AWS.
    /// Errors: `Validation`, `KeyNotFound`, `InvalidState`.
    pub fn schedule_key_deletion(
        &self,
        key: KeyId,
        window_days: Option<u16>,
        now: SystemTime,
    ) -> Result<ScheduledDeletion, KeystoreError> {
        let window_days = window_days.unwrap_or(30);
        if !(7..=30).contains(&window_days) {
            let problem = format!("a waiting period has 7 to 30 days, not {window_days}");
            return Err(KeystoreError::Validation(problem));
        }
        let key = KeyRef::Id(key);
        let request_context =
            RequestContext::default().with(Fact::PendingWindowInDays, window_days.to_string());
        let scheduled = self.edit_with(
            Action::ScheduleKeyDeletion,
            &key,
            Operation::ScheduleDeletion,
            request_context,
            |writer, key, record| {
                let waits = record.wait_for_replicas(window_days);
                if !waits {
                    start_waiting(writer, record, window_days, now.into());
                }
                Ok(ScheduledDeletion {
                    key_id: key,
                    deletion_date: record.deletion.map(|deletion| deletion.date),
                    key_state: record.state,
                    pending_window_in_days: window_days,
                })
            },
        )?;
        log::info!("key {} is {}", scheduled.key_id, scheduled.key_state.in_words());
        Ok(scheduled)
    }

    /// Ends the waiting period. The key is disabled then, not enabled; if its imported material is
    /// gone, it waits for that.
    /// Errors: `NotPendingDeletion`, `KeyNotFound`.
    pub fn cancel_key_deletion(&self, key: &KeyRef) -> Result<KeyId, KeystoreError> {
        let key = self.edit(
            Action::CancelKeyDeletion,
            key,
            Operation::CancelDeletion,
            |writer, key, record| {
                record.state = KeyState::Disabled;
                record.stop_waiting_for_replicas();
                if record.deletion.take().is_some() {
                    let pending = &mut writer.meta.pending_deletions;
                    *pending = pending.saturating_sub(1);
                }
                expiry::refresh_record(writer, key, record)?;
                Ok(key)
            },
        )?;
        log::info!("deletion of key {key} is cancelled, it is disabled");
        Ok(key)
    }

    /// Destroys the keys whose waiting period is over: key, aliases and all material leave the
    /// file, its free pages and its WAL. Copies of the file elsewhere are out of reach.
    pub fn delete_expired(
        &self,
        now: SystemTime,
        trust: ClockTrust,
    ) -> Result<Expired, KeystoreError> {
        let now = UnixTime::from(now);
        let (meta, any) = self.read(|reader| {
            let meta = reader.meta()?;
            let any = expired(reader, now.max(meta.clock))?;
            Ok((meta, any))
        })?;
        // Noted once an hour, so that a clock that runs is not taken for one that leaps.
        let note_due = now.since(meta.clock) > DAY / 24
            || meta.clock_run().is_old(now)
            || trust == ClockTrust::Confirmed;
        if any.is_empty() && !note_due {
            self.scrub_if_due();
            return Ok(Expired::default());
        }
        any.iter().try_for_each(|key| self.announce_own(OwnOperation::DeleteKey, Some(*key)))?;
        let waiting = self.destroy_on_tokens(|reader| doomed(reader, now, trust))?;
        let outcome = self.write(|writer| destroy_expired(writer, now, trust, &waiting))?;
        self.scrub_if_due();
        let mut recorded = Ok(());
        for key in &outcome.deleted {
            log::info!("key {key} is deleted");
            recorded = recorded.and(self.record_own(OwnOperation::DeleteKey, *key, None));
        }
        recorded.map(|()| outcome)
    }

    /// The latest time that was accepted: the clock was there once.
    pub fn latest_time(&self) -> Result<UnixTime, KeystoreError> {
        Ok(self.read(|reader| reader.meta())?.clock)
    }

    /// Destroys a material that nothing refers to any more. Ciphertexts that were made with it
    /// and were not reported are lost. What is known of its uses is asked in the same transaction.
    /// Errors: `MaterialInUse`, `UnknownMaterial`, `KeyNotFound`, `InvalidState`; `Missing` or `Io` if
    /// another file has the keystore's name: the material would survive in that one.
    pub fn retire_material(
        &self,
        key: &KeyRef,
        material: MaterialId,
        report: &ReferenceReport,
    ) -> Result<(), KeystoreError> {
        self.edit(Action::RetireKeyMaterial, key, Operation::Metadata, |writer, key, record| {
            // Mounts take their leases on the file that has the name, so this file would not show them.
            self.check_path()?;
            let row = writer.rows().get(Table::Material, material.as_bytes())?;
            if row.is_none_or(|row| row.owner != Some(key)) {
                return Err(KeystoreError::UnknownMaterial { key, material });
            }
            let blocker =
                match retirement_blocker(record, material, &known_volumes(writer)?, report) {
                    None => unknown_use(writer, record, material, report)?,
                    known => known,
                };
            if let Some(why) = blocker {
                return Err(KeystoreError::MaterialInUse(why));
            }
            writer.meta.scrub_due = true;
            writer.delete(Table::Material, material.as_bytes())
        })?;
        log::info!("material {material} is retired");
        self.scrub_if_due();
        Ok(())
    }

    /// Of these materials of a key those that have made ciphertexts for programs.
    /// Errors: `KeyNotFound`.
    pub fn materials_of_programs(
        &self,
        key: KeyId,
        materials: &[MaterialId],
    ) -> Result<Vec<MaterialId>, KeystoreError> {
        let record = self.read(|reader| KeyRecord::find(reader, key))?;
        let used = materials.iter().filter(|material| record.programs.contains(*material));
        Ok(used.copied().collect())
    }

    /// The materials of a key that another keystore has as well, or may have had.
    /// Errors: `KeyNotFound`.
    pub fn shared_materials(&self, key: KeyId) -> Result<Vec<MaterialId>, KeystoreError> {
        self.read(|reader| {
            let record = KeyRecord::find(reader, key)?;
            let mut materials = material::ids(reader, key)?;
            materials.retain(|material| record.is_shared(*material));
            Ok(materials)
        })
    }
}

/// The waiting period of a key begins.
pub(in crate::keystore) fn start_waiting(
    writer: &mut Writer<'_>,
    record: &mut KeyRecord,
    window_days: u16,
    now: UnixTime,
) {
    let now = observe(&mut writer.meta, now, ClockTrust::Steps);
    record.state = KeyState::PendingDeletion;
    record.deletion = Some(PendingDeletion { date: now.plus_days(window_days), window_days });
    writer.meta.pending_deletions += 1;
}

/// Takes note of the time, and returns the time that counts: `now`, or the latest time accepted
/// if that is later.
fn observe(meta: &mut Meta, now: UnixTime, trust: ClockTrust) -> UnixTime {
    let run = meta.clock_run();
    meta.clock = match trust {
        ClockTrust::Confirmed => now,
        ClockTrust::Steps if meta.pending_deletions == 0 => meta.clock.max(now),
        ClockTrust::Steps => meta.clock.max(now.min(meta.clock.plus_seconds(run.gone_on_to(now)))),
    };
    meta.set_clock_run(match trust {
        ClockTrust::Confirmed => ClockRun::steady(now),
        ClockTrust::Steps => run.seen_at(now),
    });
    meta.clock.max(now)
}

/// Why a material must stay, if it must.
fn retirement_blocker(
    record: &KeyRecord,
    material: MaterialId,
    volumes: &[VolumeId],
    report: &ReferenceReport,
) -> Option<InUse> {
    if record.current == material {
        return Some(InUse::Current(material));
    }
    if let Some(volume) = volumes.iter().find(|volume| !report.scanned.contains(volume)) {
        return Some(InUse::NotScanned(*volume));
    }
    match (report.references, report.unreadable) {
        (0, 0) => None,
        (0, unreadable) => Some(InUse::Unreadable(unreadable)),
        (references, _) => Some(InUse::Referenced(references)),
    }
}

/// What may need a material that nobody here can look up, unless somebody has looked after it.
fn unknown_use(
    reader: &Reader<'_>,
    record: &KeyRecord,
    material: MaterialId,
    report: &ReferenceReport,
) -> Result<Option<InUse>, KeystoreError> {
    let shared = record.is_shared(material);
    if !report.other_hosts_checked && (shared || serves_hosts(reader)?) {
        return Ok(Some(InUse::OtherHosts));
    }
    let programs = shared || record.programs.contains(&material);
    Ok((programs && !report.ciphertexts_checked).then_some(InUse::Programs))
}

/// True if there are, or were, access keys with which other hosts take keys for volumes.
fn serves_hosts(reader: &Reader<'_>) -> Result<bool, KeystoreError> {
    let for_volumes = |stored: &Stored<AccessKeyRecord>| stored.record.for_volumes;
    Ok(reader.meta()?.served_hosts || reader.all()?.iter().any(for_volumes))
}

fn destroy_expired(
    writer: &mut Writer<'_>,
    now: UnixTime,
    trust: ClockTrust,
    waiting: &[KeyId],
) -> Result<Expired, KeystoreError> {
    observe(&mut writer.meta, now, trust);
    let mut deleted = expired(writer, writer.meta.clock)?;
    let held = expired(writer, now)?.into_iter().filter(|key| !deleted.contains(key)).collect();
    deleted.retain(|key| !waiting.contains(key));
    for key in &deleted {
        destroy(writer, *key)?;
    }
    writer.meta.scrub_due |= !deleted.is_empty();
    writer.meta.pending_deletions =
        writer.meta.pending_deletions.saturating_sub(deleted.len() as u64);
    Ok(Expired { deleted, held })
}

/// The keys that would be destroyed now.
fn doomed(
    reader: &Reader<'_>,
    now: UnixTime,
    trust: ClockTrust,
) -> Result<Vec<KeyId>, KeystoreError> {
    let mut meta = reader.meta()?;
    observe(&mut meta, now, trust);
    expired(reader, meta.clock)
}

/// The keys whose waiting period is over at `time`.
fn expired(reader: &Reader<'_>, time: UnixTime) -> Result<Vec<KeyId>, KeystoreError> {
    let keys = reader.all::<KeyRecord>()?;
    let over = |record: &KeyRecord| record.deletion.is_some_and(|deletion| deletion.date <= time);
    keys.iter().filter(|key| over(&key.record)).map(|key| key_id(&key.id)).collect()
}

/// The wrapping key first: without it the materials are noise.
fn destroy(writer: &mut Writer<'_>, key: KeyId) -> Result<(), KeystoreError> {
    writer.delete(Table::Wrapping, key.as_bytes())?;
    for table in [Table::Material, Table::Alias, Table::Grant, Table::ImportKey] {
        for row in writer.rows().of_key(table, key)? {
            writer.delete(table, &row.id)?;
        }
    }
    writer.delete(Table::Key, key.as_bytes())
}

fn known_volumes(reader: &Reader<'_>) -> Result<Vec<VolumeId>, KeystoreError> {
    let rows = reader.rows().all(Table::Volume)?;
    let id = |row: &rows::Row| row.id.as_slice().try_into().map(VolumeId::from_bytes);
    rows.iter().map(|row| id(row).map_err(|_| sealed::tampered(Table::Volume, &row.id))).collect()
}

fn texts<S: serde::Serializer>(keys: &[KeyId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(keys.iter().map(KeyId::to_string))
}
