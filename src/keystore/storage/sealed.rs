//! Typed, sealed records over the rows of a transaction.
//!
//! Each record is serialised, sealed under the root key and bound to its table and primary key.
//! The `keystore` row holds a digest of the whole set of rows: the sum, modulo 2^256, of a keyed
//! hash of each. A row changed by hand does not open; a row removed, or put back from an older
//! copy of the file, leaves the digest wrong.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::wrapping;
use crate::crypto::Secret;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::AuditNote;
use crate::keystore::model::time::{ClockRun, UnixTime};
use crate::keystore::storage::root::{RootKey, encode_parts};
use crate::keystore::storage::rows::{MetaRow, Row, Rows, SlotRow, Table};

/// A type that is stored as rows of one table.
pub(in crate::keystore) trait Record: Serialize + DeserializeOwned {
    /// Where it is stored.
    const TABLE: Table;
}

/// A record with the ids of its row.
pub(in crate::keystore) struct Stored<R> {
    pub(in crate::keystore) id: Vec<u8>,
    pub(in crate::keystore) owner: Option<KeyId>,
    pub(in crate::keystore) record: R,
}

/// What the `keystore` row says about the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct Meta {
    /// The sum of the rows' terms.
    digest: [u8; 32],
    /// Counts transactions.
    pub(in crate::keystore) generation: u64,
    /// The latest time that was accepted. It never goes back.
    pub(in crate::keystore) clock: UnixTime,
    /// How steady the clock was when it was last looked at, whether it was accepted or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<ClockRun>,
    /// Keys in their waiting period: while there are any, the clock takes no leaps.
    pub(in crate::keystore) pending_deletions: u64,
    /// Deleted rows may still be in the WAL or in free pages.
    pub(in crate::keystore) scrub_due: bool,
    /// The Region that the keystore is, if it has been given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) region: Option<String>,
    /// What is known of the audit log.
    #[serde(default)]
    pub(in crate::keystore) audit: AuditNote,
    /// When the last export was made.
    #[serde(default)]
    pub(in crate::keystore) exported: Option<UnixTime>,
    /// A host has taken keys for a volume, or an access key for volumes was deleted, or may have been
    /// lost: there may be vaults elsewhere.
    #[serde(default)]
    pub(in crate::keystore) served_hosts: bool,
    /// A repair accepted rows of which some may be missing, or a volume had more paths than are
    /// remembered: vaults may be forgotten, or copies of them.
    #[serde(default)]
    pub(in crate::keystore) lost_volumes: bool,
}

impl Meta {
    /// What is true of a keystore that is made from an export as well; the digest grows with its rows.
    /// Exhaustive, so that somebody decides about a new field.
    pub(in crate::keystore) fn take_over(&mut self, exported: &Self) {
        let Self {
            digest: _,
            generation,
            clock,
            run,
            pending_deletions,
            // Nothing was ever deleted in a new file.
            scrub_due: _,
            region,
            // The log itself stays where it is: the copy begins its own.
            audit: AuditNote { mode, noted: _, lost: _ },
            // Of the other file.
            exported: _,
            served_hosts,
            lost_volumes,
        } = exported;
        (self.generation, self.clock, self.run) = (*generation, *clock, *run);
        self.pending_deletions = *pending_deletions;
        self.region.clone_from(region);
        self.audit.mode = *mode;
        (self.served_hosts, self.lost_volumes) = (*served_hosts, *lost_volumes);
    }

    /// How steady the clock was when it was last looked at.
    pub(in crate::keystore) fn clock_run(&self) -> ClockRun {
        self.run.unwrap_or(ClockRun::steady(self.clock))
    }

    pub(in crate::keystore) fn set_clock_run(&mut self, run: ClockRun) {
        self.run = Some(run);
    }

    /// Has the clock gone on for a day, if it is `now`? Just after it leapt nothing is removed that has
    /// ended: it may leap back, and what was removed does not come back then.
    pub(in crate::keystore) fn clock_is_steady(&self, now: UnixTime) -> bool {
        self.clock_run().seen_at(now).is_steady()
    }
}

/// The records of one read transaction.
pub(in crate::keystore) struct Reader<'a> {
    rows: &'a Rows<'a>,
    root: &'a RootKey,
}

impl<'a> Reader<'a> {
    pub(in crate::keystore) fn new(rows: &'a Rows<'a>, root: &'a RootKey) -> Self {
        Self { rows, root }
    }

    pub(in crate::keystore) fn rows(&self) -> &Rows<'a> {
        self.rows
    }

    pub(in crate::keystore) fn root(&self) -> &RootKey {
        self.root
    }

    pub(in crate::keystore) fn meta(&self) -> Result<Meta, KeystoreError> {
        let row = self.rows.meta()?;
        let body = self.root.open_row(&meta_aad(&row.id), &row.sealed);
        body.ok()
            .and_then(|body| serde_json::from_slice(&body).ok())
            .ok_or(KeystoreError::Tampered { table: "keystore", row: "1".to_owned() })
    }

    pub(in crate::keystore) fn get<R: Record>(
        &self,
        id: &[u8],
    ) -> Result<Option<R>, KeystoreError> {
        let row = self.rows.get(R::TABLE, id)?;
        row.map(|row| self.open(&row).map(|stored| stored.record)).transpose()
    }

    pub(in crate::keystore) fn all<R: Record>(&self) -> Result<Vec<Stored<R>>, KeystoreError> {
        self.rows.all(R::TABLE)?.iter().map(|row| self.open(row)).collect()
    }

    /// The records that belong to a key.
    pub(in crate::keystore) fn of_key<R: Record>(
        &self,
        key: KeyId,
    ) -> Result<Vec<Stored<R>>, KeystoreError> {
        self.rows.of_key(R::TABLE, key)?.iter().map(|row| self.open(row)).collect()
    }

    /// Opens a row as a record.
    /// Errors: `Tampered`.
    pub(in crate::keystore) fn open<R: Record>(
        &self,
        row: &Row,
    ) -> Result<Stored<R>, KeystoreError> {
        let body = self.root.open_row(&row_aad(R::TABLE, row), &row.sealed);
        let record = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let record = record.ok_or_else(|| tampered(R::TABLE, &row.id))?;
        Ok(Stored { id: row.id.clone(), owner: row.owner, record })
    }

    /// Checks that no row was changed, removed, added or put back.
    /// Errors: `Tampered` if a row can be named, else `RowSetTampered`.
    pub(in crate::keystore) fn check_set(&self) -> Result<(), KeystoreError> {
        if self.digest()? == self.meta()?.digest {
            return Ok(());
        }
        for table in Table::ALL {
            self.rows.all(table)?.iter().try_for_each(|row| self.check_row(table, row))?;
        }
        Err(KeystoreError::RowSetTampered)
    }

    /// Checks that a row is one that was once written in its place.
    /// Errors: `Tampered`.
    pub(in crate::keystore) fn check_row(
        &self,
        table: Table,
        row: &Row,
    ) -> Result<(), KeystoreError> {
        let intact = match table {
            Table::Wrapping => match row.id.as_slice().try_into().map(KeyId::from_bytes) {
                Ok(key) => self.wrapping(key).is_ok(),
                Err(_) => false,
            },
            _ => self.root.open_row(&row_aad(table, row), &row.sealed).is_ok(),
        };
        if intact { Ok(()) } else { Err(tampered(table, &row.id)) }
    }

    /// A key's wrapping key.
    /// Errors: `Tampered`, also when the row is missing.
    pub(in crate::keystore) fn wrapping(&self, key: KeyId) -> Result<Secret<32>, KeystoreError> {
        let found = wrapping::open(self.rows, self.root, key)?;
        found.ok_or_else(|| tampered(Table::Wrapping, key.as_bytes()))
    }

    /// The digest of the rows that are there.
    fn digest(&self) -> Result<[u8; 32], KeystoreError> {
        let mut sum = [0; 32];
        for table in Table::ALL {
            for row in self.rows.all(table)? {
                add(&mut sum, &self.root.set_term(&row_aad(table, &row), &row.sealed));
            }
        }
        for slot in self.rows.slots()? {
            add(&mut sum, &self.slot_term(&slot));
        }
        Ok(sum)
    }

    fn slot_term(&self, slot: &SlotRow) -> [u8; 32] {
        self.root.set_term(&slot_aad(slot), &slot.sealed)
    }
}

/// The records of one write transaction. [`Writer::finish`] must be its last act.
pub(in crate::keystore) struct Writer<'a> {
    reader: Reader<'a>,
    pub(in crate::keystore) meta: Meta,
    /// Something was written that has to be in the file itself: [`Table::is_lasting`], and slots.
    pub(in crate::keystore) lasting: bool,
}

impl<'a> std::ops::Deref for Writer<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Reader<'a> {
        &self.reader
    }
}

impl<'a> Writer<'a> {
    /// Starts from what is stored.
    pub(in crate::keystore) fn begin(
        rows: &'a Rows<'a>,
        root: &'a RootKey,
    ) -> Result<Self, KeystoreError> {
        let reader = Reader::new(rows, root);
        let meta = reader.meta()?;
        Ok(Self { reader, meta, lasting: false })
    }

    /// Starts an empty keystore.
    pub(in crate::keystore) fn fresh(
        rows: &'a Rows<'a>,
        root: &'a RootKey,
        clock: UnixTime,
    ) -> Self {
        let meta = Meta { clock, ..Meta::default() };
        Self { reader: Reader::new(rows, root), meta, lasting: false }
    }

    /// Stores a record, replacing the one with the same id.
    pub(in crate::keystore) fn put<R: Record>(
        &mut self,
        id: &[u8],
        owner: Option<KeyId>,
        record: &R,
    ) -> Result<(), KeystoreError> {
        let body = serde_json::to_vec(record).expect("records are plain data");
        let mut row = Row { id: id.to_vec(), owner, sealed: Vec::new() };
        row.sealed = self.root.seal_row(&row_aad(R::TABLE, &row), &body)?;
        self.put_row(R::TABLE, &row)
    }

    /// Stores a row whose bytes are sealed already.
    pub(in crate::keystore) fn put_row(
        &mut self,
        table: Table,
        row: &Row,
    ) -> Result<(), KeystoreError> {
        self.forget(table, &row.id)?;
        let term = self.root.set_term(&row_aad(table, row), &row.sealed);
        add(&mut self.meta.digest, &term);
        self.lasting |= table.is_lasting();
        self.rows.put(table, row)
    }

    /// Deletes a row, if it is there.
    pub(in crate::keystore) fn delete(
        &mut self,
        table: Table,
        id: &[u8],
    ) -> Result<(), KeystoreError> {
        self.forget(table, id)?;
        self.rows.delete(table, id)
    }

    /// Takes a row out of the digest.
    fn forget(&mut self, table: Table, id: &[u8]) -> Result<(), KeystoreError> {
        if let Some(old) = self.rows.get(table, id)? {
            let term = self.root.set_term(&row_aad(table, &old), &old.sealed);
            subtract(&mut self.meta.digest, &term);
        }
        Ok(())
    }

    pub(in crate::keystore) fn put_slot(&mut self, slot: &SlotRow) -> Result<(), KeystoreError> {
        add(&mut self.meta.digest, &self.reader.slot_term(slot));
        self.lasting = true;
        self.rows.put_slot(slot)
    }

    pub(in crate::keystore) fn delete_slot(&mut self, slot: &SlotRow) -> Result<(), KeystoreError> {
        subtract(&mut self.meta.digest, &self.reader.slot_term(slot));
        self.rows.delete_slot(slot.id)
    }

    /// Takes the rows that are there for those that belong there.
    pub(in crate::keystore) fn accept_rows(&mut self) -> Result<(), KeystoreError> {
        self.meta.digest = self.digest()?;
        Ok(())
    }

    /// Writes the `keystore` row that goes with what was changed.
    pub(in crate::keystore) fn finish(mut self) -> Result<(), KeystoreError> {
        self.meta.generation += 1;
        let body = serde_json::to_vec(&self.meta).expect("the row is plain data");
        let id = *self.root.keystore();
        let sealed = self.root.seal_row(&meta_aad(&id), &body)?;
        self.rows.put_meta(&MetaRow { id, sealed })
    }
}

/// Bytes as text inside records.
pub(in crate::keystore) mod base64 {
    use base64ct::{Base64, Encoding};
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::keystore) fn serialize<S: Serializer>(
        bytes: &[u8],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64::encode_string(bytes))
    }

    pub(in crate::keystore) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        Base64::decode_vec(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The name of a row in an error.
pub(in crate::keystore) fn tampered(table: Table, id: &[u8]) -> KeystoreError {
    KeystoreError::Tampered { table: table.name(), row: base16ct::lower::encode_string(id) }
}

/// The clear columns of a slot, which its sealed part authenticates.
pub(in crate::keystore) fn slot_aad(slot: &SlotRow) -> Vec<u8> {
    let cost = slot.cost.map(u32::to_be_bytes);
    let id = slot.id.to_be_bytes();
    let kind = slot.kind.as_bytes();
    let parts: [&[u8]; 7] =
        [b"slot", &id, kind, &slot.salt, cost.as_flattened(), &slot.root, &slot.detail];
    // Slots of schema 1 have no detail, and were sealed without that part.
    encode_parts(if slot.detail.is_empty() { &parts[..6] } else { &parts })
}

/// What the sealed root key authenticates: everything that was used to reach it.
pub(in crate::keystore) fn root_aad(keystore: &[u8; 16], slot: &SlotRow) -> Vec<u8> {
    let cost = slot.cost.map(u32::to_be_bytes);
    let parts: [&[u8]; 6] =
        [b"root", keystore, slot.kind.as_bytes(), &slot.salt, cost.as_flattened(), &slot.detail];
    // Slots of schema 1 have no detail, and were sealed without that part.
    encode_parts(if slot.detail.is_empty() { &parts[..5] } else { &parts })
}

fn meta_aad(id: &[u8; 16]) -> Vec<u8> {
    encode_parts(&[b"keystore", id])
}

fn row_aad(table: Table, row: &Row) -> Vec<u8> {
    let owner = row.owner.as_ref().map_or(&[] as &[u8], |key| key.as_bytes());
    encode_parts(&[table.name().as_bytes(), &row.id, owner])
}

/// `sum += term` modulo 2^256.
fn add(sum: &mut [u8; 32], term: &[u8; 32]) {
    let mut carry = 0;
    for (digit, other) in sum.iter_mut().zip(term) {
        let total = u16::from(*digit) + u16::from(*other) + carry;
        [*digit, _] = total.to_le_bytes();
        carry = total >> 8;
    }
}

/// `sum -= term` modulo 2^256: adds the two's complement.
fn subtract(sum: &mut [u8; 32], term: &[u8; 32]) {
    let mut one = [0; 32];
    one[0] = 1;
    add(sum, &term.map(|byte| !byte));
    add(sum, &one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_terms_out_undoes_putting_them_in_any_order() {
        let terms: Vec<[u8; 32]> = (0..20).map(|_| *Secret::random().unwrap().expose()).collect();
        let mut sum = [0xff; 32];
        terms.iter().for_each(|term| add(&mut sum, term));
        assert_ne!(sum, [0xff; 32]);
        terms.iter().rev().for_each(|term| subtract(&mut sum, term));
        assert_eq!(sum, [0xff; 32]);
    }

    #[test]
    fn sums_wrap_around() {
        let mut sum = [0xff; 32];
        let mut one = [0; 32];
        one[0] = 1;
        add(&mut sum, &one);
        assert_eq!(sum, [0; 32]);
        subtract(&mut sum, &one);
        assert_eq!(sum, [0xff; 32]);
    }
}
