//! The 512-byte record that header slots and descriptors share (FORMAT section 3).
//!
//! `magic 8 | format u16 | suite u16 | body | MAC 32 | CRC-32 4`, little endian. The CRC lets a check
//! without keys find damage; the MAC is what is trusted.

use super::recipient::{Opaque, Recipient, WRAPPED_LEN, Wrapped};
use super::{EnvelopeError, FORMAT, SUITE};
use crate::crypto::hash::{hmac_sha256, hmac_verify};
use crate::crypto::secret::Secret;
use crate::id::{KeyId, MaterialId};

/// Bytes of a record: one sector, so that an update is never torn across two.
pub const RECORD_LEN: usize = 512;

const RECIPIENT_KMS_KEY: u8 = 1;
const RECIPIENT_OPAQUE: u8 = 2;
const BODY_START: usize = 12;
const MAC_START: usize = RECORD_LEN - 4 - 32;
const CRC_START: usize = RECORD_LEN - 4;

/// Fills a record in order.
pub(super) struct RecordWriter {
    bytes: [u8; RECORD_LEN],
    at: usize,
}

impl RecordWriter {
    pub(super) fn new(magic: &[u8; 8]) -> Self {
        Self::of_format(magic, FORMAT)
    }

    pub(super) fn of_format(magic: &[u8; 8], format: u16) -> Self {
        let mut writer = Self { bytes: [0; RECORD_LEN], at: 0 };
        writer.put(magic);
        writer.put(&format.to_le_bytes());
        writer.put(&SUITE.to_le_bytes());
        writer
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        let end = self.at + bytes.len();
        // Recipients are refused where they do not fit; a record without its end would be one that
        // nobody can open any more.
        assert!(end <= MAC_START, "a record body is at most {MAC_START} bytes");
        self.bytes[self.at..end].copy_from_slice(bytes);
        self.at = end;
    }

    pub(super) fn put_recipient(&mut self, recipient: &Recipient) {
        let (kind, length, wrapped): (_, _, &[u8]) = match &recipient.wrapped {
            Wrapped::Kms(wrapped) => (RECIPIENT_KMS_KEY, 0, wrapped),
            Wrapped::Opaque(opaque) => (RECIPIENT_OPAQUE, opaque.length(), opaque.as_bytes()),
        };
        self.put(&[kind, 0]);
        self.put(&u16::to_le_bytes(length));
        self.put(recipient.key.as_bytes());
        self.put(recipient.material.as_bytes());
        self.put(wrapped);
    }

    pub(super) fn finish(mut self, mac_key: &Secret<32>) -> [u8; RECORD_LEN] {
        let (body, tail) = self.bytes.split_at_mut(MAC_START);
        let mac = hmac_sha256(mac_key, &[body]);
        tail[..32].copy_from_slice(&mac);
        let (all, crc) = self.bytes.split_at_mut(CRC_START);
        crc.copy_from_slice(&crc32fast::hash(all).to_le_bytes());
        self.bytes
    }
}

/// Reads a record in order; every read is bounds checked.
pub(super) struct RecordReader<'a> {
    what: &'static str,
    format: u16,
    /// Without the MAC and the CRC.
    body: &'a [u8],
    at: usize,
}

impl<'a> RecordReader<'a> {
    /// Checks magic, CRC, format and suite, in this order.
    pub(super) fn new(
        what: &'static str,
        magic: &[u8; 8],
        bytes: &'a [u8; RECORD_LEN],
    ) -> Result<Self, EnvelopeError> {
        Self::up_to(FORMAT, what, magic, bytes)
    }

    /// The same for a record that also has later formats, up to `newest`.
    pub(super) fn up_to(
        newest: u16,
        what: &'static str,
        magic: &[u8; 8],
        bytes: &'a [u8; RECORD_LEN],
    ) -> Result<Self, EnvelopeError> {
        let (all, crc) = bytes.split_at(CRC_START);
        if !all.starts_with(magic) || crc32fast::hash(all).to_le_bytes() != *crc {
            return Err(EnvelopeError::Malformed(what));
        }
        let (body, _mac) = all.split_at(MAC_START);
        let mut reader = Self { what, format: 0, body, at: magic.len() };
        let (format, suite) = (reader.u16()?, reader.u16()?);
        debug_assert_eq!(reader.at, BODY_START);
        if format > newest || (format >= FORMAT && suite > SUITE) {
            return Err(EnvelopeError::Newer(what));
        }
        if format < FORMAT || suite != SUITE {
            return Err(EnvelopeError::Malformed(what));
        }
        reader.format = format;
        Ok(reader)
    }

    /// The format of the record.
    pub(super) fn format(&self) -> u16 {
        self.format
    }

    pub(super) fn newer(&self) -> EnvelopeError {
        EnvelopeError::Newer(self.what)
    }

    pub(super) fn malformed(&self) -> EnvelopeError {
        EnvelopeError::Malformed(self.what)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        self.bytes(N)?.try_into().map_err(|_| self.malformed())
    }

    /// The next bytes of the body.
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], EnvelopeError> {
        let end = self.at + length;
        let bytes = self.body.get(self.at..end).ok_or_else(|| self.malformed())?;
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8, EnvelopeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, EnvelopeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, EnvelopeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, EnvelopeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn recipient(&mut self) -> Result<Recipient, EnvelopeError> {
        let [kind, reserved] = self.array()?;
        let length = self.u16()?;
        let (key, material) = (KeyId::from_bytes(self.array()?), self.array()?);
        let wrapped = match (kind, reserved, length) {
            (RECIPIENT_KMS_KEY, 0, 0) => Wrapped::Kms(self.array::<WRAPPED_LEN>()?),
            (RECIPIENT_OPAQUE, 0, length) => {
                let bytes = self.bytes(usize::from(length))?.to_vec();
                Wrapped::Opaque(Opaque::new(bytes).map_err(|_| self.malformed())?)
            }
            (RECIPIENT_KMS_KEY, ..) => return Err(self.malformed()),
            _ => return Err(EnvelopeError::Newer(self.what)),
        };
        Ok(Recipient { key, material: MaterialId::from_bytes(material), wrapped })
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
