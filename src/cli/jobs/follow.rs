//! The re-wrap after the rotation of a key.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::rewrap::{self, What};
use super::survey::Scan;
use crate::id::{KeyId, MaterialId};
use crate::keystore::{Keystore, KnownVolume};
use crate::volume::{References, Volume};

/// The re-wrap after rotations of a volume that is mounted, by its daemon.
pub(in crate::cli) struct Follower {
    keystore: Arc<Keystore>,
    volume: Arc<Volume>,
    vault: std::path::PathBuf,
}

impl Follower {
    pub(in crate::cli) fn new(
        keystore: &Arc<Keystore>,
        volume: &Arc<Volume>,
        vault: &Path,
    ) -> Self {
        Self { keystore: Arc::clone(keystore), volume: Arc::clone(volume), vault: vault.to_owned() }
    }

    /// Counts what the volume needs, and re-wraps it if that is wanted and due.
    pub(in crate::cli) fn follow(&self) {
        let known = self.keystore.known_volumes().unwrap_or_default().into_iter();
        let own = |known: &KnownVolume| known.id == self.volume.id();
        let Some(known) = known.filter(|known| known.rewrap_after_rotate).find(own) else { return };
        let behind = |known| {
            Scan::of(&self.keystore, known).filter(|scan| is_behind(&self.keystore, &scan.found))
        };
        if behind(&known).is_none() {
            return;
        }
        match rewrap::carry_out(&self.volume, &self.vault, &What::default(), &mut |_| true) {
            Ok(report) if report["complete"] == true => {
                log::info!("volume {} was re-wrapped after a rotation", self.volume.id());
            }
            Ok(report) => {
                let left = report["failed"].as_array().map_or(0, Vec::len);
                log::warn!(
                    "volume {} was not wholly re-wrapped after a rotation: {left} files are left; \
                     'kmsfs rewrap' says which",
                    self.volume.id()
                );
            }
            Err(error) => log::warn!("re-wrap after a rotation: {}", error.what),
        }
    }
}

/// True if something is wrapped under material that is not the current one of its key.
pub(in crate::cli) fn is_behind(keystore: &Keystore, found: &References) -> bool {
    let named = found.files.keys().chain(found.directories.keys());
    let mut current: HashMap<KeyId, Option<MaterialId>> = HashMap::new();
    named.into_iter().any(|(key, material)| {
        let current = current.entry(*key).or_insert_with(|| keystore.current_material(*key).ok());
        current.is_some_and(|current| current != *material)
    })
}
