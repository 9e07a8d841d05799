//! The volumes that this keystore has keys for, so that others can ask what a key is needed by.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::{DirId, KeyId, MaterialId, VolumeId};
use crate::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::id::text;
use crate::keystore::model::time::{DAY, UnixTime};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record, base64, tampered};

/// A volume and where it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KnownVolume {
    /// The volume.
    #[serde(with = "text")]
    pub id: VolumeId,
    /// Its directory.
    pub path: PathBuf,
    /// Where it was as well, or before: a copy there needs what it needed.
    pub also: Vec<PathBuf>,
    /// What it needed when it was last looked into.
    pub scan: Option<VolumeScan>,
    /// After a rotation its data keys are wrapped anew without anybody asking.
    pub rewrap_after_rotate: bool,
}

/// What the headers of a volume referred to at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeScan {
    /// When.
    pub at: UnixTime,
    /// Headers that could not be read.
    pub unreadable: u64,
    /// The materials that were needed.
    pub needs: Vec<VolumeNeed>,
}

/// How much of a volume needs a material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeNeed {
    /// The key.
    #[serde(with = "text")]
    pub key: KeyId,
    /// The material.
    #[serde(with = "text")]
    pub material: MaterialId,
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
}

/// What the keystore remembers of a volume so that whoever writes to the vault cannot change it:
/// the trust anchor that the records in the vault are held against.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeAnchor {
    /// The word of the last session that was seen.
    pub word: i64,
    /// How far the record of that session was at least: one with a lower sequence is from before a
    /// recovery ended. 0 if an earlier build wrote this.
    #[serde(default)]
    pub sequence: u64,
    /// That session was closed cleanly.
    pub closed: bool,
    /// What the volume is known to have: an older structure in its place is a replay.
    pub features: u32,
    /// Directories that have a policy of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<AnchoredPolicy>,
    /// How often an older or forked vault was seen.
    #[serde(default)]
    pub rollbacks: u64,
}

/// The newest descriptor of a directory with a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchoredPolicy {
    /// The directory.
    #[serde(with = "text")]
    pub directory: DirId,
    /// The sequence of its descriptor: an older one is a replay.
    pub sequence: u64,
    /// Its turn among the directories that were removed, from 1 on; 0 for one that is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
}

impl AnchoredPolicy {
    /// Leaves the directories that are there, and the last ones that were removed: whoever can write
    /// to the vault may put one of those back where it was.
    pub fn forget_long_removed(policies: &mut Vec<Self>) {
        let mut removed: Vec<_> = policies.iter().map(|policy| policy.removed).collect();
        removed.retain(|turn| *turn > 0);
        if removed.len() > REMOVED {
            removed.sort_unstable();
            let oldest = removed.get(removed.len() - REMOVED).copied().unwrap_or(0);
            policies.retain(|policy| policy.removed == 0 || policy.removed >= oldest);
        }
    }
}

/// So many removed directories are remembered.
const REMOVED: usize = 1000;

impl VolumeScan {
    /// Files and directories that needed a key.
    pub fn of_key(&self, key: KeyId) -> (u64, u64) {
        let needs = self.needs.iter().filter(|need| need.key == key);
        needs.fold((0, 0), |(files, dirs), need| (files + need.files, dirs + need.directories))
    }
}

#[derive(Default, Serialize, Deserialize)]
pub(in crate::keystore) struct VolumeRecord {
    #[serde(with = "base64")]
    path: Vec<u8>,
    /// Other places, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    also: Vec<Place>,
    #[serde(default)]
    scan: Option<VolumeScan>,
    #[serde(default)]
    rewrap_after_rotate: bool,
    /// Another volume has taken its path since.
    #[serde(default, skip_serializing_if = "is_false")]
    replaced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anchor: Option<VolumeAnchor>,
}

/// A path, which need not be text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place(#[serde(with = "base64")] Vec<u8>);

impl VolumeRecord {
    /// Remembers a place beside the one where the volume is. True if that is new.
    fn note(&mut self, place: &[u8]) -> bool {
        let place = Place(place.to_owned());
        if place.0.is_empty() || place.0 == self.path || self.also.contains(&place) {
            return false;
        }
        self.also.push(place);
        let surplus = self.also.len().saturating_sub(PLACES);
        self.also.drain(..surplus);
        true
    }
}

/// So many other places of a volume are remembered.
const PLACES: usize = 16;

impl Record for VolumeRecord {
    const TABLE: Table = Table::Volume;
}

impl Keystore {
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
            record.also.retain(|place| place.0 != path);
            record.note(&before);
            writer.put(volume.as_bytes(), None, &record)
        })
    }

    /// Remembers that a volume was seen at `path` as well: a copy that is only read is not where it
    /// is, and needs its keys all the same. A volume that is not known is registered there.
    pub fn note_volume_place(&self, volume: VolumeId, path: &Path) -> Result<(), KeystoreError> {
        let place = path.as_os_str().as_bytes();
        let known = self.read(|reader| reader.get::<VolumeRecord>(volume.as_bytes()))?;
        let Some(mut known) = known else { return self.register_volume(volume, path) };
        if !known.note(place) {
            return Ok(());
        }
        self.change_volume(volume, |record| {
            record.note(place);
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
        self.operate_own("kmsfs:SetRewrapAfterRotate", |touched| {
            touched.detail = Some(format!("volume {volume}: {wanted}"));
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
                    let also = also.into_iter().map(|place| OsString::from_vec(place.0).into());
                    let also = also.collect();
                    Ok(KnownVolume { id, path, also, scan, rewrap_after_rotate })
                })
                .collect()
        })
    }

    /// Forgets a volume that is gone for good: it no longer protects the keys it used.
    /// Errors: `VolumeNotFound`.
    pub fn forget_volume(&self, volume: VolumeId) -> Result<(), KeystoreError> {
        self.operate_own("kmsfs:ForgetVolume", |touched| {
            touched.detail = Some(format!("volume {volume}"));
            self.write(|writer| {
                volume_record(writer, volume)?;
                writer.delete(Table::Volume, volume.as_bytes())
            })
        })
    }
}

/// Errors: `VolumeNotFound`.
fn volume_record(reader: &Reader<'_>, volume: VolumeId) -> Result<VolumeRecord, KeystoreError> {
    reader.get(volume.as_bytes())?.ok_or(KeystoreError::VolumeNotFound(volume))
}

/// The volumes but this one that are expected at `path`.
fn others_at(
    reader: &Reader<'_>,
    volume: VolumeId,
    path: &[u8],
) -> Result<Vec<(VolumeId, VolumeRecord)>, KeystoreError> {
    let mut others = Vec::new();
    for stored in reader.all::<VolumeRecord>()? {
        let id = stored.id.as_slice().try_into().map(VolumeId::from_bytes);
        let id = id.map_err(|_| tampered(Table::Volume, &stored.id))?;
        if id != volume && stored.record.path == path && !stored.record.replaced {
            others.push((id, stored.record));
        }
    }
    Ok(others)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}
