//! The 512-byte record that header slots and descriptors share (FORMAT section 3).
//!
//! `magic 8 | format u16 | suite u16 | body | MAC 32 | CRC-32 4`, little endian. The CRC lets a check
//! without keys find damage; the MAC is what is trusted.

use super::{EnvelopeError, FORMAT, SUITE};
use crate::crypto::hash::{hmac_sha256, hmac_verify};
use crate::crypto::secret::Secret;
use crate::id::{KeyId, MaterialId};

/// Bytes of a record: one sector, so that an update is never torn across two.
pub const RECORD_LEN: usize = 512;
/// Bytes of a wrapped 32-byte key: nonce 24, ciphertext 32, tag 16.
pub const WRAPPED_LEN: usize = 72;

const RECIPIENT_KMS_KEY: u8 = 1;
const BODY_START: usize = 12;
const MAC_START: usize = RECORD_LEN - 4 - 32;
const CRC_START: usize = RECORD_LEN - 4;

/// A key wrapped for one KMS key (FORMAT section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The KMS key.
    pub key: KeyId,
    /// The version of its material.
    pub material: MaterialId,
    /// Nonce, ciphertext and tag.
    pub wrapped: [u8; WRAPPED_LEN],
}

/// Fills a record in order.
pub(super) struct RecordWriter {
    bytes: [u8; RECORD_LEN],
    at: usize,
}

impl RecordWriter {
    pub(super) fn new(magic: &[u8; 8]) -> Self {
        let mut writer = Self { bytes: [0; RECORD_LEN], at: 0 };
        writer.put(magic);
        writer.put(&FORMAT.to_le_bytes());
        writer.put(&SUITE.to_le_bytes());
        writer
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        debug_assert!(end <= MAC_START, "a record body is at most {MAC_START} bytes");
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(bytes);
        }
        self.at = end;
    }

    pub(super) fn put_recipient(&mut self, recipient: &Recipient) {
        self.put(&[RECIPIENT_KMS_KEY, 0, 0, 0]);
        self.put(recipient.key.as_bytes());
        self.put(recipient.material.as_bytes());
        self.put(&recipient.wrapped);
    }

    pub(super) fn finish(mut self, mac_key: &Secret<32>) -> [u8; RECORD_LEN] {
        let (body, tail) = self.bytes.split_at_mut(MAC_START);
        let mac = hmac_sha256(mac_key, &[body]);
        if let Some(room) = tail.get_mut(..32) {
            room.copy_from_slice(&mac);
        }
        let (all, crc) = self.bytes.split_at_mut(CRC_START);
        crc.copy_from_slice(&crc32fast::hash(all).to_le_bytes());
        self.bytes
    }
}

/// Reads a record in order; every read is bounds checked.
pub(super) struct RecordReader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> RecordReader<'a> {
    /// Checks magic, CRC, format and suite, in this order.
    pub(super) fn new(
        what: &'static str,
        magic: &[u8; 8],
        bytes: &'a [u8; RECORD_LEN],
    ) -> Result<Self, EnvelopeError> {
        let (all, crc) = bytes.split_at(CRC_START);
        if !all.starts_with(magic) || crc32fast::hash(all).to_le_bytes() != *crc {
            return Err(EnvelopeError::Malformed(what));
        }
        let mut reader = Self { what, bytes: all, at: magic.len() };
        let (format, suite) = (reader.u16()?, reader.u16()?);
        debug_assert_eq!(reader.at, BODY_START);
        if format > FORMAT || (format == FORMAT && suite > SUITE) {
            return Err(EnvelopeError::Newer(what));
        }
        if format != FORMAT || suite != SUITE {
            return Err(EnvelopeError::Malformed(what));
        }
        Ok(reader)
    }

    pub(super) fn malformed(&self) -> EnvelopeError {
        EnvelopeError::Malformed(self.what)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let end = self.at + N;
        let bytes = self.bytes.get(self.at..end).and_then(|b| b.try_into().ok());
        self.at = end;
        bytes.ok_or(EnvelopeError::Malformed(self.what))
    }

    pub(super) fn u8(&mut self) -> Result<u8, EnvelopeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, EnvelopeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, EnvelopeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn recipient(&mut self) -> Result<Recipient, EnvelopeError> {
        let [kind, reserved @ ..] = self.array::<4>()?;
        if kind != RECIPIENT_KMS_KEY || reserved != [0; 3] {
            return Err(self.malformed());
        }
        Ok(Recipient {
            key: KeyId::from_bytes(self.array()?),
            material: MaterialId::from_bytes(self.array()?),
            wrapped: self.array()?,
        })
    }
}

/// Verifies the MAC of a whole record in constant time.
pub(super) fn verify_mac(
    what: &'static str,
    bytes: &[u8; RECORD_LEN],
    mac_key: &Secret<32>,
) -> Result<(), EnvelopeError> {
    let (body, tail) = bytes.split_at(MAC_START);
    let mac = tail.first_chunk::<32>().ok_or(EnvelopeError::Malformed(what))?;
    hmac_verify(mac_key, &[body], mac).map_err(|_| EnvelopeError::NotAuthentic(what))
}
