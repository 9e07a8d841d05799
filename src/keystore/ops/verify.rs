//! Is a keystore whole? Looks at every row, changes nothing.

use std::collections::HashSet;

use serde::Serialize;

use crate::id::{KeyId, MaterialId};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::spec::Origin;
use crate::keystore::model::state::KeyState;
use crate::keystore::records::access_key::AccessKeyRecord;
use crate::keystore::records::alias::AliasRecord;
use crate::keystore::records::grant::GrantRecord;
use crate::keystore::records::key::{KeyRecord, key_id};
use crate::keystore::records::material;
use crate::keystore::records::principal::PrincipalRecord;
use crate::keystore::records::volume::VolumeRecord;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::schema;
use crate::keystore::storage::sealed::{Reader, Record, Stored, Writer};
use crate::keystore::unlock::slot;

/// What [`Keystore::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Keys that are intact.
    pub keys: usize,
    /// Key materials that are intact and unwrap.
    pub materials: usize,
    /// Aliases that are intact.
    pub aliases: usize,
    /// Registered volumes that are intact.
    pub volumes: usize,
    /// Unlock slots that are intact.
    pub slots: usize,
    /// Everything that is wrong, a sentence each. Empty for a good keystore.
    pub problems: Vec<String>,
}

/// What [`Keystore::repair`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// What was removed, by its kind.
    pub removed: Vec<String>,
    /// What is there now, and what is still wrong.
    #[serde(flatten)]
    pub left: VerifyReport,
}

impl VerifyReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Counts what is intact, notes what is not.
    fn take<T>(&mut self, result: Result<T, KeystoreError>) -> Option<T> {
        result.map_err(|error| self.problems.push(error.to_string())).ok()
    }
}

impl Keystore {
    /// Checks everything that can be checked: SQLite's own structure, the schema, every row's
    /// authenticity, the set of rows, references between rows, and that all material unwraps.
    /// Errors: only when the file cannot be read; what is wrong with it is in the report.
    pub fn verify(&self) -> Result<VerifyReport, KeystoreError> {
        self.read(|reader| {
            let mut report =
                VerifyReport { problems: reader.rows().damage()?, ..Default::default() };
            check_schema(reader, &mut report)?;
            check_slots(reader, &mut report)?;
            check_keys(reader, &mut report)?;
            report.aliases = open_all::<AliasRecord>(reader, &mut report)?.len();
            report.volumes = open_all::<VolumeRecord>(reader, &mut report)?.len();
            open_all::<GrantRecord>(reader, &mut report)?;
            open_all::<PrincipalRecord>(reader, &mut report)?;
            open_all::<AccessKeyRecord>(reader, &mut report)?;
            report.take(reader.check_set());
            Ok(report)
        })
    }
}

impl Keystore {
    /// Makes a keystore that was tampered with or damaged usable again: removes slots,
    /// and rows other than keys and their material, that do not authenticate, and accepts all others. Rows that
    /// are gone stay gone, and a row that was put back from an older copy is accepted: for
    /// somebody who read the report of [`Keystore::verify`] and has no backup. A principal whose policies
    /// are removed may do nothing from then on: a Deny may have stood there. Works on a handle
    /// of [`Keystore::open_damaged`]. If rows may be gone, the keystore notes that it may have forgotten
    /// vaults, access keys, and what has encrypted for programs.
    /// Errors: `LastSlot` if no slot would be left; `StrangeWal` if there is nothing to repair but
    /// that.
    pub fn repair(&self) -> Result<RepairReport, KeystoreError> {
        self.check_wal_belongs()?;
        let removed = self.operate_own(OwnOperation::RepairKeystore, |details| {
            let removed = self.accept_what_is_left()?;
            if !removed.is_empty() {
                details.detail = Some(format!("removed {}", removed.join(", ")));
            }
            Ok(removed)
        })?;
        log::warn!("the keystore was repaired: its rows are accepted as they are");
        Ok(RepairReport { removed, left: self.verify()? })
    }

    fn accept_what_is_left(&self) -> Result<Vec<String>, KeystoreError> {
        self.write(|writer| {
            // What else was there nobody can say.
            let incomplete = writer.check_set().is_err();
            let mut removed = Vec::new();
            for (table, kind) in REPLACEABLE {
                let rows = writer.rows().all(table)?;
                let bad = rows.iter().filter(|row| writer.check_row(table, row).is_err());
                let bad: Vec<_> = bad.collect();
                note_removed(&mut removed, bad.len(), rows.len(), kind);
                for row in bad {
                    writer.rows().delete(table, &row.id)?;
                    if table == Table::Principal {
                        writer.put(&row.id, None, &PrincipalRecord::lost())?;
                    }
                }
            }
            let slots = writer.rows().slots()?;
            let (good, bad): (Vec<_>, Vec<_>) =
                slots.iter().partition(|slot| slot::info(writer, slot).is_ok());
            if good.is_empty() {
                return Err(KeystoreError::LastSlot);
            }
            note_removed(&mut removed, bad.len(), slots.len(), "unlock slots");
            bad.iter().try_for_each(|slot| writer.rows().delete_slot(slot.id))?;
            let pending = |key: &Stored<KeyRecord>| key.record.state == KeyState::PendingDeletion;
            let keys = open_all::<KeyRecord>(writer, &mut VerifyReport::default())?;
            writer.meta.pending_deletions = keys.iter().filter(|key| pending(key)).count() as u64;
            if incomplete {
                distrust(writer, keys)?;
            }
            writer.accept_rows()?;
            Ok(removed)
        })
    }
}

/// From here on, what the keystore does not know of says nothing: a vault, another host, or ciphertexts
/// of programs may need any material that is there now.
fn distrust(writer: &mut Writer<'_>, keys: Vec<Stored<KeyRecord>>) -> Result<(), KeystoreError> {
    (writer.meta.lost_volumes, writer.meta.served_hosts) = (true, true);
    for Stored { id, mut record, .. } in keys {
        let key = key_id(&id)?;
        for row in writer.rows().of_key(Table::Material, key)? {
            record.programs.extend(row.id.as_slice().try_into().map(MaterialId::from_bytes));
        }
        record.save(writer, key)?;
    }
    Ok(())
}

fn note_removed(removed: &mut Vec<String>, bad: usize, all: usize, kind: &str) {
    if bad > 0 {
        removed.push(format!("{bad} of {all} {kind}"));
    }
}

/// What can be made again, and stands in the way while it does not authenticate.
const REPLACEABLE: [(Table, &str); 5] = [
    (Table::Alias, "aliases"),
    (Table::Volume, "known vaults"),
    (Table::Grant, "grants"),
    (Table::Principal, "principals' policies, and these principals are refused everything"),
    (Table::AccessKey, "access keys"),
];

fn check_schema(reader: &Reader<'_>, report: &mut VerifyReport) -> Result<(), KeystoreError> {
    if reader.rows().schema()? != schema::expected()? {
        let problem = "the tables, indexes or triggers are not those that kmsfs makes";
        report.problems.push(problem.to_owned());
    }
    Ok(())
}

fn check_slots(reader: &Reader<'_>, report: &mut VerifyReport) -> Result<(), KeystoreError> {
    for slot in reader.rows().slots()? {
        let intact = report.take(slot::info(reader, &slot)).is_some();
        report.slots += usize::from(intact);
    }
    Ok(())
}

fn check_keys(reader: &Reader<'_>, report: &mut VerifyReport) -> Result<(), KeystoreError> {
    let keys = open_all::<KeyRecord>(reader, report)?;
    report.keys = keys.len();
    let mut known = HashSet::new();
    let mut pending = 0;
    for stored in &keys {
        if let Some(key) = report.take(key_id(&stored.id)) {
            known.insert(stored.id.as_slice());
            check_materials(reader, key, &stored.record, report);
        }
        pending += u64::from(stored.record.state == KeyState::PendingDeletion);
    }
    for wrapping in reader.rows().all(Table::Wrapping)? {
        if !known.contains(wrapping.id.as_slice()) {
            report.problems.push("a wrapping key belongs to no key".to_owned());
        }
    }
    let counted = report.take(reader.meta()).map(|meta| meta.pending_deletions);
    if counted.is_some_and(|counted| counted != pending) {
        report.problems.push("the number of keys that wait for deletion is wrong".to_owned());
    }
    Ok(())
}

fn check_materials(reader: &Reader<'_>, key: KeyId, record: &KeyRecord, report: &mut VerifyReport) {
    let Some(materials) = report.take(material::load(reader, key, record.spec)) else { return };
    report.materials += materials.len();
    let elsewhere = record.key_store.is_some()
        || record.origin == Origin::External
            && matches!(record.state, KeyState::PendingImport | KeyState::PendingDeletion);
    if !elsewhere && !materials.iter().any(|(material, _)| *material == record.current) {
        report.problems.push(format!("key {key} has lost its current material"));
    }
}

/// The rows of a table that authenticate; the others go into the report.
fn open_all<R: Record>(
    reader: &Reader<'_>,
    report: &mut VerifyReport,
) -> Result<Vec<Stored<R>>, KeystoreError> {
    let rows = reader.rows().all(R::TABLE)?;
    Ok(rows.iter().filter_map(|row| report.take(reader.open(row))).collect())
}
