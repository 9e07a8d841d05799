//! The descriptor of the volume, in two copies.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::Volume;
use crate::envelope::{
    RECORD_LEN, Recipient, UnverifiedVolume, VolumeDescriptor, VolumeFeatures, VolumeKeys,
};
use crate::id::KeyId;
use crate::volume::backing::beneath::Name;
use crate::volume::backing::own_file;
use crate::volume::keys::keyring::{Keyring, Purpose};
use crate::volume::model::error::{Result, VolumeError};

pub(in crate::volume) const DESCRIPTOR: Name<'static> = Name::literal("volume");
pub(in crate::volume) const SPARE: Name<'static> = Name::literal("volume.bak");

impl Volume {
    /// The copies of the volume descriptor as they are now.
    pub(in crate::volume) fn descriptor_copies(&self) -> Result<Vec<VolumeDescriptor>> {
        let copies = read_descriptors(self.session().meta(), Path::new("."))?;
        Ok(copies.into_iter().map(|copy| copy.claims().clone()).collect())
    }

    /// Wraps the volume key again, under the key that `choose` returns for the present one.
    ///
    /// *Crash*: one copy is new, the other still under the old material: the re-wrap runs again. Once no
    /// copy is under older material, either opens alone.
    pub(in crate::volume) fn rewrap_descriptor(
        &self,
        choose: impl Fn(KeyId) -> Option<KeyId>,
    ) -> Result<()> {
        let session = self.session();
        let copies = read_descriptors(session.meta(), Path::new("."))?;
        let (mut descriptor, keys) = verify(&self.keyring, &copies)?;
        let outdated = |old: &Recipient| -> Result<Option<KeyId>> {
            let Some(to) = choose(old.key) else { return Ok(None) };
            let current = old.key == to && old.material == self.keyring.current_material(to)?;
            Ok((!current).then_some(to))
        };
        let mut any = false;
        for copy in &copies {
            any |= outdated(&copy.claims().recipient)?.is_some();
        }
        if !any {
            return Ok(());
        }
        if let Some(to) = outdated(&descriptor.recipient)? {
            descriptor.recipient =
                self.keyring.rewrap(&descriptor.recipient, to, Purpose::Volume)?;
        }
        descriptor.sequence += 1;
        write_descriptor(session.meta(), &descriptor, &keys)
    }

    /// The volume has these features from here on, for good: the descriptor says so first, then what
    /// is remembered of it outside of the vault.
    ///
    /// # Errors
    /// Those of the backing filesystem and of the keystore; it can be repeated.
    pub(in crate::volume) fn add_features(&self, features: VolumeFeatures) -> Result<()> {
        let session = self.session();
        let Some(ledger) = session.ledger().cloned() else { return Ok(()) };
        let copies = read_descriptors(session.meta(), Path::new("."))?;
        let (mut descriptor, keys) = verify(&self.keyring, &copies)?;
        if !descriptor.features.has(features) {
            descriptor.features = descriptor.features.with(features);
            descriptor.sequence += 1;
            write_descriptor(session.meta(), &descriptor, &keys)?;
        }
        drop(session);
        ledger.add_features(features)
    }
}

/// The readable copies of the volume descriptor, newest first.
pub(in crate::volume) fn read_descriptors(
    meta: &OwnedFd,
    path: &Path,
) -> Result<Vec<UnverifiedVolume>> {
    let mut copies = Vec::new();
    let mut failure = VolumeError::NotAVolume(path.into());
    for name in [DESCRIPTOR, SPARE] {
        match own_file::read(meta, name, (RECORD_LEN, "volume descriptor")) {
            Ok(Some(bytes)) => match UnverifiedVolume::parse(&bytes) {
                Ok(copy) => copies.push(copy),
                Err(error) => failure = error.into(),
            },
            Ok(None) => {}
            // The other copy may be good.
            Err(error @ VolumeError::Tampered(_)) => failure = error,
            Err(error) => return Err(error),
        }
    }
    if copies.is_empty() {
        return Err(failure);
    }
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.claims().sequence));
    Ok(copies)
}

/// Which copies of the volume descriptor are missing or not authentic. An older one is neither.
pub(in crate::volume) fn damaged_copies(
    meta: &OwnedFd,
    keys: &VolumeKeys,
) -> Result<Vec<(&'static str, &'static str)>> {
    let mut found = Vec::new();
    for (name, text) in [(DESCRIPTOR, "volume"), (SPARE, "volume.bak")] {
        let good = match own_file::read(meta, name, (RECORD_LEN, "volume descriptor")) {
            Ok(Some(bytes)) => {
                UnverifiedVolume::parse(&bytes).is_ok_and(|copy| copy.verify(keys).is_ok())
            }
            Ok(None) | Err(VolumeError::Tampered(_)) => false,
            Err(error) => return Err(error),
        };
        if !good {
            found.push((text, "a copy of the volume descriptor is missing or damaged"));
        }
    }
    Ok(found)
}

pub(in crate::volume) fn verify(
    keyring: &Keyring,
    copies: &[UnverifiedVolume],
) -> Result<(VolumeDescriptor, VolumeKeys)> {
    let mut failure = VolumeError::Tampered("volume descriptor");
    for copy in copies {
        match keyring.open_volume(copy.claims()) {
            Ok(keys) => match copy.verify(&keys) {
                Ok(descriptor) => return Ok((descriptor, keys)),
                Err(error) => failure = error.into(),
            },
            Err(error @ VolumeError::Tampered(_)) => failure = error,
            Err(error) => return Err(error),
        }
    }
    Err(failure)
}

pub(in crate::volume) fn write_descriptor(
    meta: &OwnedFd,
    descriptor: &VolumeDescriptor,
    keys: &VolumeKeys,
) -> Result<()> {
    let bytes = descriptor.encode(keys);
    own_file::replace(meta, SPARE, &bytes)?;
    Ok(own_file::replace(meta, DESCRIPTOR, &bytes)?)
}
