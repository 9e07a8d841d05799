//! The volumes that this keystore has keys for, so that others can ask what a key is needed by.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Keystore;
use super::error::KeystoreError;
use super::id::text;
use super::record::{Record, base64, tampered};
use super::store::Table;
use crate::id::VolumeId;

/// A volume and where it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownVolume {
    /// The volume.
    #[serde(with = "text")]
    pub id: VolumeId,
    /// Its directory.
    pub path: PathBuf,
}

#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct VolumeRecord {
    #[serde(with = "base64")]
    path: Vec<u8>,
}

impl Record for VolumeRecord {
    const TABLE: Table = Table::Volume;
}

impl Keystore {
    /// Remembers that a volume uses keys of this keystore. Writes nothing if it is known at this
    /// path.
    pub fn register_volume(&self, volume: VolumeId, path: &Path) -> Result<(), KeystoreError> {
        let record = VolumeRecord { path: path.as_os_str().as_bytes().to_vec() };
        let known = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        if known.as_ref() == Some(&record) {
            return Ok(());
        }
        self.write(|writer| writer.put(volume.as_bytes(), None, &record))
    }

    /// All volumes that were registered and not forgotten.
    pub fn known_volumes(&self) -> Result<Vec<KnownVolume>, KeystoreError> {
        self.read(|reader| {
            let stored = reader.all::<VolumeRecord>()?.into_iter();
            stored
                .map(|volume| {
                    let id = volume.id.as_slice().try_into().map(VolumeId::from_bytes);
                    let id = id.map_err(|_| tampered(Table::Volume, &volume.id))?;
                    Ok(KnownVolume { id, path: OsString::from_vec(volume.record.path).into() })
                })
                .collect()
        })
    }

    /// Forgets a volume that is gone for good: it no longer protects the keys it used.
    /// Errors: `VolumeNotFound`.
    pub fn forget_volume(&self, volume: VolumeId) -> Result<(), KeystoreError> {
        self.write(|writer| match writer.rows().get(Table::Volume, volume.as_bytes())? {
            Some(_) => writer.delete(Table::Volume, volume.as_bytes()),
            None => Err(KeystoreError::VolumeNotFound(volume)),
        })
    }
}
