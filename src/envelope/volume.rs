//! The volume descriptor (FORMAT section 9): kept twice in the vault's `.kmsfs` directory.

use std::sync::Arc;

use super::EnvelopeError;
use super::recipient::Recipient;
use super::record::{RECORD_LEN, RecordReader, RecordWriter, verify_mac};
use super::times::TimesKey;
use crate::crypto::hash::{Label, derive};
use crate::crypto::secret::Secret;
use crate::id::VolumeId;

const MAGIC: &[u8; 8] = b"KMSFSV1\0";
const WHAT: &str = "volume descriptor";

/// What a volume says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeDescriptor {
    /// The volume's id, bound into every wrap.
    pub volume: VolumeId,
    /// Higher is newer.
    pub sequence: u64,
    /// What it has beyond the first volumes of the format: bits of [`VolumeFeatures`].
    pub features: VolumeFeatures,
    /// When it was made, in nanoseconds since 1970.
    pub created: i64,
    /// The volume key, wrapped under the KMS key of the root directory.
    pub recipient: Recipient,
}

/// What a volume has that builds from before do not know: they refuse it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeFeatures(u32);

impl VolumeFeatures {
    /// Sessions are kept in an authenticated record, and seals hold their words (section 12).
    pub const STATE_RECORD: Self = Self(1);
    /// Every directory says where it belongs (section 7.1).
    pub const PLACED: Self = Self(2);
    /// Everything that this code knows.
    pub const ALL: Self = Self(Self::STATE_RECORD.0 | Self::PLACED.0);

    /// The features with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The stored form.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True if every feature of `other` is among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the volume key gives.
#[derive(Debug)]
pub struct VolumeKeys {
    volume: VolumeId,
    commitment: [u8; 32],
    mac: Secret<32>,
    state_mac: Secret<32>,
    anchor_mac: Secret<32>,
    times: Arc<TimesKey>,
}

impl VolumeKeys {
    /// The keys that the volume key gives for `volume`.
    pub fn new(volume: VolumeId, key: &Secret<32>) -> Self {
        let salt = volume.as_bytes();
        Self {
            volume,
            commitment: *derive::<32>(key, salt, Label::VolumeCommit).expose(),
            mac: derive(key, salt, Label::VolumeDescriptor),
            state_mac: derive(key, salt, Label::VolumeState),
            anchor_mac: derive(key, salt, Label::VolumeAnchor),
            times: Arc::new(TimesKey::new(volume, key)),
        }
    }

    /// The volume that they are of.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// Authenticates an anchor that is kept in a file.
    pub fn anchor_mac(&self) -> &Secret<32> {
        &self.anchor_mac
    }

    /// Authenticates the list of shown times.
    pub fn times_key(&self) -> &Arc<TimesKey> {
        &self.times
    }

    pub(super) fn state_mac(&self) -> &Secret<32> {
        &self.state_mac
    }
}

impl VolumeDescriptor {
    /// The descriptor's bytes.
    pub fn encode(&self, keys: &VolumeKeys) -> [u8; RECORD_LEN] {
        let mut record = RecordWriter::new(MAGIC);
        record.put(&self.features.bits().to_le_bytes());
        record.put(&self.sequence.to_le_bytes());
        record.put(self.volume.as_bytes());
        record.put(&keys.commitment);
        record.put(&self.created.to_le_bytes());
        record.put_recipient(&self.recipient);
        record.finish(&keys.mac)
    }
}

/// A descriptor whose form and CRC are right; its contents are claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedVolume {
    bytes: [u8; RECORD_LEN],
    commitment: [u8; 32],
    descriptor: VolumeDescriptor,
}

impl UnverifiedVolume {
    /// Reads a descriptor without any key.
    ///
    /// # Errors
    /// `Malformed` for damage or foreign bytes, `Newer` for a later format.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        let bytes: &[u8; RECORD_LEN] =
            bytes.try_into().map_err(|_| EnvelopeError::Malformed(WHAT))?;
        let mut reader = RecordReader::new(WHAT, MAGIC, bytes)?;
        let features = VolumeFeatures(u32::from_le_bytes(reader.array()?));
        if !VolumeFeatures::ALL.has(features) {
            return Err(EnvelopeError::Newer(WHAT));
        }
        let sequence = reader.u64()?;
        let volume = VolumeId::from_bytes(reader.array()?);
        let commitment = reader.array()?;
        let created = reader.i64()?;
        let recipient = reader.recipient()?;
        let descriptor = VolumeDescriptor { volume, sequence, features, created, recipient };
        Ok(Self { bytes: *bytes, commitment, descriptor })
    }

    /// What the descriptor claims.
    pub fn claims(&self) -> &VolumeDescriptor {
        &self.descriptor
    }

    /// The descriptor, if `keys` made it.
    ///
    /// # Errors
    /// `NotAuthentic` when they did not.
    pub fn verify(&self, keys: &VolumeKeys) -> Result<VolumeDescriptor, EnvelopeError> {
        if keys.volume != self.descriptor.volume || self.commitment != keys.commitment {
            return Err(EnvelopeError::NotAuthentic(WHAT));
        }
        verify_mac(WHAT, &self.bytes, &keys.mac)?;
        Ok(self.descriptor.clone())
    }
}
