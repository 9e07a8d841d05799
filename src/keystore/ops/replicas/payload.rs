//! What travels: the record of a key as JSON, and the bytes of its materials beside it.
//!
//! Shape: JSON length (u32) | JSON | for each material its length (u32) and bytes.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::id::{KeyId, MaterialId};
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::id::text;
use crate::keystore::records::key::KeyRecord;
use crate::keystore::records::material::{self, MaterialRecord};
use crate::keystore::records::regions::Regions;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Writer, tampered};

/// A key on its way.
pub(in crate::keystore) struct Payload {
    pub(in crate::keystore) record: KeyRecord,
    pub(in crate::keystore) regions: Regions,
    materials: Vec<(About, Zeroizing<Vec<u8>>)>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    record: KeyRecord,
    materials: Vec<About>,
}

/// What is known about a material.
#[derive(Clone, Serialize, Deserialize)]
struct About {
    #[serde(with = "text")]
    id: MaterialId,
    record: MaterialRecord,
}

impl About {
    /// The row of imported material that is known here. Material that was deleted on either side is
    /// deleted there only, so that its end is what it is here.
    fn renew(&self, known: MaterialRecord, bytes: &[u8]) -> MaterialRecord {
        let end = known.valid_to();
        let mut record = MaterialRecord { sealed: known.sealed, ..self.record.clone() };
        if (record.sealed.is_empty() || bytes.is_empty())
            && let Some(import) = &mut record.imported
        {
            import.valid_to = end;
        }
        record
    }
}

impl Payload {
    /// All of a multi-Region key.
    pub(in crate::keystore) fn of(
        reader: &Reader<'_>,
        key: KeyId,
        record: &KeyRecord,
    ) -> Result<Self, KeystoreError> {
        let regions = record.regions.clone().ok_or(ReplicaError::NotMultiRegion(key))?;
        let mut materials = Vec::new();
        for stored in reader.of_key::<MaterialRecord>(key)? {
            let id = stored.id.as_slice().try_into().map(MaterialId::from_bytes);
            let id = id.map_err(|_| tampered(Table::Material, &stored.id))?;
            let (record, bytes) = material::carry(reader, key, id, stored.record)?;
            materials.push((About { id, record }, bytes));
        }
        Ok(Self { record: record.clone(), regions, materials })
    }

    /// The materials that travel: either keystore has them then.
    pub(in crate::keystore) fn material_ids(&self) -> impl Iterator<Item = MaterialId> {
        self.materials.iter().map(|(about, _)| about.id)
    }

    /// Stores the materials that the key does not have yet, and what is new about imported ones.
    /// Errors: `Replica(Malformed)` for a material of another key.
    pub(in crate::keystore) fn store_materials(
        &self,
        writer: &mut Writer<'_>,
        key: KeyId,
    ) -> Result<(), KeystoreError> {
        for (about, bytes) in &self.materials {
            let id = about.id.as_bytes();
            match writer.rows().get(Table::Material, id)? {
                None => material::put_carried(writer, key, about.id, &about.record, bytes)?,
                Some(row) if row.owner != Some(key) => {
                    return Err(ReplicaError::Malformed("transfer of a key").into());
                }
                Some(row) if about.record.imported.is_some() => {
                    let known = writer.open::<MaterialRecord>(&row)?.record;
                    writer.put(id, Some(key), &about.renew(known, bytes))?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(in crate::keystore) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let json = Json {
            record: self.record.clone(),
            materials: self.materials.iter().map(|(about, _)| about.clone()).collect(),
        };
        let json = serde_json::to_vec(&json).expect("records are plain data");
        let parts = || self.materials.iter().map(|(_, bytes)| bytes.as_slice());
        let len: usize = parts().map(|part| part.len() + 4).sum();
        // Never grows, so that no copy of a material stays behind.
        let mut out = Zeroizing::new(Vec::with_capacity(json.len() + 4 + len));
        for part in std::iter::once(json.as_slice()).chain(parts()) {
            let len = u32::try_from(part.len()).expect("no part has 4 GiB");
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(part);
        }
        out
    }

    /// Errors: `Replica(Malformed)`.
    pub(in crate::keystore) fn from_bytes(bytes: &[u8]) -> Result<Self, KeystoreError> {
        let malformed = || KeystoreError::from(ReplicaError::Malformed("transfer of a key"));
        let (json, mut rest) = part(bytes).ok_or_else(malformed)?;
        let json: Json = serde_json::from_slice(json).map_err(|_| malformed())?;
        let mut materials = Vec::with_capacity(json.materials.len());
        for about in json.materials {
            let (bytes, after) = part(rest).ok_or_else(malformed)?;
            materials.push((about, Zeroizing::new(bytes.to_vec())));
            rest = after;
        }
        let regions = json.record.regions.clone().ok_or_else(malformed)?;
        if rest.is_empty() {
            Ok(Self { record: json.record, regions, materials })
        } else {
            Err(malformed())
        }
    }
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)
}
