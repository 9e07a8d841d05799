//! Brings volumes up to date from before directories said where they belong: once, beside everything
//! else. *Crash order*: the descriptors, then that all of them have places, in the volume's descriptor
//! and at last outside of the vault; every step can be repeated.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use super::descent::{Descent, Unseen};
use crate::envelope::VolumeFeatures;
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};

impl Volume {
    /// Writes down in every directory that it belongs where it is now. From the end of that on,
    /// directories that do not say so are refused: old ones that somebody puts back.
    ///
    /// `progress` may stop it at any point. Directories whose key cannot be used are left out, and
    /// have to be adopted when it can: otherwise one disabled key would let old directories in for
    /// ever.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the keystore.
    pub fn place_directories(&self, progress: &mut dyn FnMut() -> ControlFlow<()>) -> Result<()> {
        let Some(ledger) = self.session().ledger().cloned() else { return Ok(()) };
        let remembered = VolumeFeatures::from_bits(ledger.anchor().features);
        if self.tree.anchor.all_placed() && remembered.has(VolumeFeatures::PLACED) {
            return Ok(());
        }
        if !self.tree.anchor.all_placed() && self.place_all(progress)?.is_break() {
            return Ok(());
        }
        self.sync_everything()?;
        self.add_features(VolumeFeatures::PLACED)?;
        self.tree.anchor.set_all_placed();
        self.save_dir_policies();
        Ok(())
    }

    /// Passes until one finds nothing left, while no directory was moved away from under it.
    fn place_all(&self, progress: &mut dyn FnMut() -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let mut total = 0;
        loop {
            let moved = self.tree.moved.load(Ordering::Acquire);
            let (mut placed, mut closed) = (0_u64, 0_u64);
            let mut descent = Descent::new(self)?;
            while let Some((_, dir)) = descent.step()? {
                if progress().is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                match dir.descriptor() {
                    Ok(found) if found.places.is_some() => {}
                    Ok(_) => {
                        let changed = self.change_descriptor(&dir, |now| Ok(Some(now.clone())))?;
                        placed += u64::from(changed);
                    }
                    Err(VolumeError::KeyUnusable(_)) => closed += 1,
                    Err(_) => {}
                }
            }
            // Directories that were not seen would be refused from then on.
            let missed = descent.missed();
            if let Some(missed) = missed.iter().find(|missed| missed.why != Unseen::Nameless) {
                log::warn!("volume {}: in {}, {}", self.id(), missed.path.display(), missed.why);
                return Ok(ControlFlow::Break(()));
            }
            total += placed;
            if placed == 0 && moved == self.tree.moved.load(Ordering::Acquire) {
                log::info!("volume {}: {total} directories now say where they belong", self.id());
                if closed > 0 {
                    log::warn!(
                        "volume {}: {closed} directories could not be told, for their keys cannot be \
                         used: 'kmsfs adopt' takes each in when its key can",
                        self.id()
                    );
                }
                return Ok(ControlFlow::Continue(()));
            }
        }
    }
}
