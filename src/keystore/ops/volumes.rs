//! The volumes that this keystore has keys for, so that others can ask what a key is needed by.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::id::VolumeId;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::operation::OwnOperation;
use crate::keystore::model::time::DAY;
use crate::keystore::records::volume::{
    KnownVolume, VolumeAnchor, VolumeRecord, VolumeScan, others_at, volume_record,
};
use crate::keystore::storage::lease::{LeasedDir, leased};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::tampered;

impl Keystore {
    /// True if the keystore may have forgotten vaults, or copies of them, whose files need its keys: it was
    /// repaired, or a volume was seen at more paths than are remembered.
    /// Errors: `Tampered`, `Database`.
    pub fn may_have_lost_volumes(&self) -> Result<bool, KeystoreError> {
        Ok(self.read(|reader| reader.meta())?.lost_volumes)
    }

    /// Takes the word of somebody who knows them that all vaults, and all copies of them, are known again.
    /// Errors: `Tampered`, `Database`.
    pub fn confirm_volumes(&self) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::ConfirmVolumes, |_| {
            self.write(|writer| {
                writer.meta.lost_volumes = false;
                Ok(())
            })
        })
    }

    /// Remembers that a volume uses keys of this keystore, and where it is; the path is no other
    /// volume's any more. Writes nothing if that is known.
    pub fn register_volume(&self, volume: VolumeId, path: &Path) -> Result<(), KeystoreError> {
        let path = path.as_os_str().as_bytes();
        let own = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        let others = self.read(|reader| others_at(reader, volume, path))?;
        if own.is_some_and(|own| own.path == path && !own.replaced) && others.is_empty() {
            return Ok(());
        }
        self.write(|writer| {
            let own = writer.get::<VolumeRecord>(volume.as_bytes())?;
            for (id, other) in others_at(writer, volume, path)? {
                let other = VolumeRecord { replaced: true, ..other };
                writer.put(id.as_bytes(), None, &other)?;
            }
            let own = own.unwrap_or_default();
            let before = own.path.clone();
            let mut record = VolumeRecord { path: path.to_owned(), replaced: false, ..own };
            record.also.retain(|other| other.0 != path);
            record.note(writer, &before);
            writer.put(volume.as_bytes(), None, &record)
        })
    }

    /// Says, until this process is gone, that it works with the vault in this directory: nothing that it
    /// may need is destroyed unseen. [`Keystore::check_path`] says it by another file that has got the
    /// keystore's name.
    /// Errors: `Io`.
    pub fn lease_vault(&self, dir: LeasedDir) -> Result<(), KeystoreError> {
        self.leases().take(self.path(), dir)
    }

    /// The vaults that other processes work with by this keystore now, also in other mount namespaces.
    /// Errors: `Io`.
    pub fn leased_vaults(&self) -> Result<BTreeSet<LeasedDir>, KeystoreError> {
        leased(self.path())
    }

    /// Remembers that a volume was seen at `path` as well: a copy that is only read is not where it
    /// is, and needs its keys all the same. A volume that is not known is registered there.
    pub fn note_volume_path(&self, volume: VolumeId, path: &Path) -> Result<(), KeystoreError> {
        let bytes = path.as_os_str().as_bytes();
        let known = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        let Some(known) = known else { return self.register_volume(volume, path) };
        if known.knows(bytes) {
            return Ok(());
        }
        self.write(|writer| {
            let mut record = volume_record(writer, volume)?;
            record.note(writer, bytes);
            writer.put(volume.as_bytes(), None, &record)
        })
    }

    /// The volume that is expected at `path`, if `volume` is found there and both are known, this
    /// one from elsewhere: somebody may have exchanged their directories.
    pub fn expected_volume(
        &self,
        volume: VolumeId,
        path: &Path,
    ) -> Result<Option<VolumeId>, KeystoreError> {
        let path = path.as_os_str().as_bytes();
        let own = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        let others = self.read(|reader| others_at(reader, volume, path))?;
        let from_elsewhere = own.is_some_and(|own| own.path != path || own.replaced);
        Ok(others.first().map(|(id, _)| *id).filter(|_| from_elsewhere))
    }

    /// The anchor of a volume; `None` for one that this keystore has not seen yet.
    ///
    /// Reads past every cache: another process may have written a moment ago.
    pub fn volume_anchor(&self, volume: VolumeId) -> Result<Option<VolumeAnchor>, KeystoreError> {
        let record = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        Ok(record.and_then(|record| record.anchor))
    }

    /// Stores the anchor of a volume durably, and registers the volume at `path` if it is not known.
    pub fn set_volume_anchor(
        &self,
        volume: VolumeId,
        path: &Path,
        anchor: &VolumeAnchor,
    ) -> Result<(), KeystoreError> {
        self.change_volume_anchor(volume, path, |_| anchor.clone())
    }

    /// As [`Self::set_volume_anchor`], with a look at what is stored in the same step: another
    /// process may have written since.
    pub fn change_volume_anchor(
        &self,
        volume: VolumeId,
        path: &Path,
        change: impl FnOnce(Option<VolumeAnchor>) -> VolumeAnchor,
    ) -> Result<(), KeystoreError> {
        self.write(|writer| {
            let known = writer.get::<VolumeRecord>(volume.as_bytes())?;
            let mut record = known.unwrap_or_else(|| VolumeRecord {
                path: path.as_os_str().as_bytes().to_owned(),
                ..VolumeRecord::default()
            });
            record.anchor = Some(change(record.anchor.take()));
            writer.put(volume.as_bytes(), None, &record)
        })
    }

    /// Remembers what a registered volume needed when somebody looked. Writes nothing if that is
    /// known and fresh.
    /// Errors: `VolumeNotFound`.
    pub fn remember_scan(&self, volume: VolumeId, scan: &VolumeScan) -> Result<(), KeystoreError> {
        let known = self.read(|reader| volume_record(reader, volume))?.scan;
        let same = |known: VolumeScan| {
            known.needs == scan.needs
                && known.unreadable == scan.unreadable
                && scan.at.since(known.at) < DAY
        };
        if known.is_some_and(same) {
            return Ok(());
        }
        self.change_volume(volume, |record| record.scan = Some(scan.clone()))
    }

    /// Says whether the data keys of a volume are wrapped anew after a rotation without anybody
    /// asking.
    /// Errors: `VolumeNotFound`.
    pub fn set_rewrap_after_rotate(
        &self,
        volume: VolumeId,
        wanted: bool,
    ) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::SetRewrapAfterRotate, |details| {
            details.detail = Some(format!("volume {volume}: {wanted}"));
            self.change_volume(volume, |record| record.rewrap_after_rotate = wanted)
        })
    }

    fn change_volume(
        &self,
        volume: VolumeId,
        change: impl FnOnce(&mut VolumeRecord),
    ) -> Result<(), KeystoreError> {
        self.write(|writer| {
            let mut record = volume_record(writer, volume)?;
            change(&mut record);
            writer.put(volume.as_bytes(), None, &record)
        })
    }

    /// All volumes that were registered and not forgotten.
    pub fn known_volumes(&self) -> Result<Vec<KnownVolume>, KeystoreError> {
        self.read(|reader| {
            let stored = reader.all::<VolumeRecord>()?.into_iter();
            stored
                .map(|volume| {
                    let id = volume.id.as_slice().try_into().map(VolumeId::from_bytes);
                    let id = id.map_err(|_| tampered(Table::Volume, &volume.id))?;
                    let VolumeRecord { path, also, scan, rewrap_after_rotate, .. } = volume.record;
                    let path = OsString::from_vec(path).into();
                    let also = also.into_iter().map(|other| OsString::from_vec(other.0).into());
                    let also = also.collect();
                    Ok(KnownVolume { id, path, also, scan, rewrap_after_rotate })
                })
                .collect()
        })
    }

    /// Forgets a volume that is gone for good: it no longer protects the keys it used.
    /// Errors: `VolumeNotFound`.
    pub fn forget_volume(&self, volume: VolumeId) -> Result<(), KeystoreError> {
        self.operate_own(OwnOperation::ForgetVolume, |details| {
            details.detail = Some(format!("volume {volume}"));
            self.write(|writer| {
                volume_record(writer, volume)?;
                writer.delete(Table::Volume, volume.as_bytes())
            })
        })
    }
}
