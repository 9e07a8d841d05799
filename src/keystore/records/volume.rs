//! The volumes that this keystore has keys for: where they are, what they need, and what their
//! records are held against.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::{DirId, DirPlace, KeyId, MaterialId, VolumeId};
use crate::keystore::error::KeystoreError;
use crate::keystore::model::id::text;
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record, Writer, base64, tampered};

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
    pub policies: Vec<AnchoredDirPolicy>,
    /// Where those are, and the directories above them; the last ones that were learnt come last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<AnchoredPlace>,
    /// How often an older or forked vault was seen.
    #[serde(default)]
    pub rollbacks: u64,
    /// How often the anchor was written: of two stores that remember one session, the one with the
    /// higher number was written later. 0 if an earlier build wrote this.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub writes: u64,
}

/// The newest descriptor of a directory with a policy of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchoredDirPolicy {
    /// The directory.
    #[serde(with = "text")]
    pub directory: DirId,
    /// The sequence of its descriptor: an older one is a replay.
    pub sequence: u64,
    /// Its turn among the directories that were removed, from 1 on; 0 for one that is there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub removed: u64,
}

/// A place that belongs to one directory: another one there was put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchoredPlace {
    /// The place.
    #[serde(with = "text")]
    pub place: DirPlace,
    /// The directory.
    #[serde(with = "text")]
    pub directory: DirId,
}

impl AnchoredDirPolicy {
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
    pub(in crate::keystore) path: Vec<u8>,
    /// Other paths, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::keystore) also: Vec<VolumePath>,
    #[serde(default)]
    pub(in crate::keystore) scan: Option<VolumeScan>,
    #[serde(default)]
    pub(in crate::keystore) rewrap_after_rotate: bool,
    /// Another volume has taken its path since.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(in crate::keystore) replaced: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) anchor: Option<VolumeAnchor>,
}

/// A path, which need not be text.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct VolumePath(
    #[serde(with = "base64")] pub(in crate::keystore) Vec<u8>,
);

impl VolumeRecord {
    /// True if this is a path of the volume that is remembered.
    pub(in crate::keystore) fn knows(&self, path: &[u8]) -> bool {
        path.is_empty() || path == self.path || self.also.iter().any(|other| other.0 == path)
    }

    /// Remembers a path beside the one where the volume is, in the place of the oldest if there are too
    /// many. What is forgotten so may still hold a copy: the keystore notes that it does not know
    /// everything.
    pub(in crate::keystore) fn note(&mut self, writer: &mut Writer<'_>, path: &[u8]) {
        if self.knows(path) {
            return;
        }
        self.also.push(VolumePath(path.to_owned()));
        let surplus = self.also.len().saturating_sub(MOST_PATHS);
        if surplus > 0 {
            self.also.drain(..surplus);
            writer.meta.lost_volumes = true;
            log::warn!(
                "a volume was seen at more than {MOST_PATHS} other paths, and the oldest is forgotten: \
                 'kmsfs key retire' will ask for it"
            );
        }
    }
}

/// How many other paths of a volume are remembered. Not all that there can be: the row is written at the
/// beginning and end of each session.
const MOST_PATHS: usize = 128;

impl Record for VolumeRecord {
    const TABLE: Table = Table::Volume;
}

/// Errors: `VolumeNotFound`.
pub(in crate::keystore) fn volume_record(
    reader: &Reader<'_>,
    volume: VolumeId,
) -> Result<VolumeRecord, KeystoreError> {
    reader.get(volume.as_bytes())?.ok_or(KeystoreError::VolumeNotFound(volume))
}

/// The volumes but this one that are expected at `path`.
pub(in crate::keystore) fn others_at(
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
