//! One crypto unit: the contents of one backing page (FORMAT section 5).
//!
//! `nonce 24 | tag 16 | length u16 | kind u8 | flags u8 | ciphertext | zeros to the end of the page`.
//! The unit of page 0 starts behind the header slots.

use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::layout::{PAGE_LEN, PageNo, UNIT_HEADER};
use super::{EnvelopeError, FORMAT, SUITE};
use crate::crypto::bulk::BulkKey;
use crate::crypto::random;
use crate::crypto::secret::Secret;
use crate::crypto::xaes;
use crate::id::FileId;

/// Bytes of a unit before its ciphertext.
pub const SEALED_UNIT_HEADER: usize = UNIT_HEADER;

/// Units that one first half of a nonce serves (R11).
const UNITS_PER_PREFIX: u32 = 1 << 24;
/// Derived keys kept for reading: a file has one for each daemon run that wrote to it.
const READ_KEYS: usize = 8;
const AAD_LEN: usize = 36;
/// Where in a unit its length stands.
const LENGTH_AT: usize = 40;

/// What a unit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// The start of a block.
    Data,
    /// The tails of a group's blocks.
    Spill,
}

/// The page and purpose that a unit is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitPlace {
    /// The page of the backing file.
    pub page: PageNo,
    /// What the page is for.
    pub kind: UnitKind,
}

/// What a page turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// All zeros: a hole, or never written.
    Absent,
    /// Authentic, with this many bytes of payload and the first 8 bytes of its tag.
    Present {
        /// Payload bytes.
        length: usize,
        /// The first 8 bytes of the unit's tag.
        tag: [u8; 8],
    },
}

/// Seals and opens the units of one file.
pub struct UnitCipher {
    file: FileId,
    root: Secret<32>,
    writing: RwLock<Option<Arc<WriteKey>>>,
    reading: RwLock<Vec<([u8; 12], Arc<BulkKey>)>>,
}

struct WriteKey {
    prefix: [u8; 12],
    key: Arc<BulkKey>,
    left: AtomicU32,
}

impl std::fmt::Debug for UnitCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnitCipher").field("file", &self.file).finish_non_exhaustive()
    }
}

impl UnitPlace {
    /// The place of a data page.
    pub fn data(page: PageNo) -> Self {
        Self { page, kind: UnitKind::Data }
    }

    /// The place of a spill page.
    pub fn spill(page: PageNo) -> Self {
        Self { page, kind: UnitKind::Spill }
    }
}

impl UnitCipher {
    pub(super) fn new(file: FileId, root: Secret<32>) -> Self {
        Self { file, root, writing: RwLock::new(None), reading: RwLock::new(Vec::new()) }
    }

    /// Seals `payload` into `unit` and returns the first 8 bytes of the tag.
    ///
    /// Shape: `unit` is the page from the unit's start to the page's end and is overwritten whole;
    /// `payload` is at most `unit.len() - 44` bytes; `nonce` is the fresh second half of the nonce.
    ///
    /// # Errors
    /// `Crypto` if the system gives no randomness.
    pub fn seal(
        &self,
        place: UnitPlace,
        nonce: &[u8; 12],
        payload: &[u8],
        unit: &mut [u8],
    ) -> Result<[u8; 8], EnvelopeError> {
        let key = self.write_key()?;
        let (header, room) =
            unit.split_at_mut_checked(UNIT_HEADER).ok_or(EnvelopeError::Malformed("page"))?;
        let (ciphertext, rest) = room
            .split_at_mut_checked(payload.len())
            .ok_or(EnvelopeError::Malformed("page payload"))?;
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let aad = self.aad(place, length);
        let tag = key.key.seal_to(nonce, &aad, payload, ciphertext)?;
        rest.fill(0);
        let mut at = 0;
        for part in [&key.prefix[..], nonce, &tag, &length.to_le_bytes(), &[place.kind.code(), 0]] {
            if let Some(room) = header.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
            }
            at += part.len();
        }
        Ok(short(&tag))
    }

    /// Opens `unit` into `out`, which must have room for its payload.
    ///
    /// # Errors
    /// `NotAuthentic` for anything but zeros that was not sealed at this place of this file;
    /// nothing is left in `out` then.
    pub fn open(
        &self,
        place: UnitPlace,
        unit: &[u8],
        out: &mut [u8],
    ) -> Result<Opened, EnvelopeError> {
        let bad = EnvelopeError::NotAuthentic("page");
        let (header, room) = unit.split_at_checked(UNIT_HEADER).ok_or(bad)?;
        if header.iter().all(|b| *b == 0) && room.iter().all(|b| *b == 0) {
            return Ok(Opened::Absent);
        }
        let (prefix, rest) = header.split_first_chunk::<12>().ok_or(bad)?;
        let (nonce, rest) = rest.split_first_chunk::<12>().ok_or(bad)?;
        let (tag, rest) = rest.split_first_chunk::<16>().ok_or(bad)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(bad)?;
        let length = u16::from_le_bytes(*length);
        if rest != [place.kind.code(), 0] {
            return Err(bad);
        }
        let ciphertext = room.get(..usize::from(length)).ok_or(bad)?;
        let plain = out.get_mut(..usize::from(length)).ok_or(bad)?;
        let key = self.read_key(prefix);
        key.open_to(nonce, &self.aad(place, length), ciphertext, tag, plain).map_err(|_| bad)?;
        Ok(Opened::Present { length: usize::from(length), tag: short(tag) })
    }

    fn aad(&self, place: UnitPlace, length: u16) -> [u8; AAD_LEN] {
        let mut aad = [0; AAD_LEN];
        let mut at = 0;
        for part in [
            &b"unit"[..],
            &FORMAT.to_le_bytes(),
            &SUITE.to_le_bytes(),
            &[place.kind.code(), 0],
            &length.to_le_bytes(),
            self.file.as_bytes(),
            &place.page.0.to_le_bytes(),
        ] {
            if let Some(room) = aad.get_mut(at..at + part.len()) {
                room.copy_from_slice(part);
            }
            at += part.len();
        }
        aad
    }

    fn write_key(&self) -> Result<Arc<WriteKey>, EnvelopeError> {
        if let Some(key) = &*read(&self.writing)
            && key.take()
        {
            return Ok(key.clone());
        }
        let mut prefix = [0; 12];
        random::fill_nonces(&mut prefix)?;
        let key = self.read_key(&prefix);
        let fresh = Arc::new(WriteKey { prefix, key, left: AtomicU32::new(UNITS_PER_PREFIX - 1) });
        *write(&self.writing) = Some(fresh.clone());
        Ok(fresh)
    }

    fn read_key(&self, prefix: &[u8; 12]) -> Arc<BulkKey> {
        if let Some((_, key)) = read(&self.reading).iter().find(|(known, _)| known == prefix) {
            return key.clone();
        }
        let key = Arc::new(BulkKey::new(&xaes::derive_key(&self.root, prefix)));
        let mut cache = write(&self.reading);
        if cache.len() >= READ_KEYS {
            cache.remove(0);
        }
        cache.push((*prefix, key.clone()));
        key
    }
}

/// The length that a page's unit claims, authentic or not: at most a page's payload.
pub fn claimed_length(page: PageNo, bytes: &[u8]) -> usize {
    let at = page.unit_start() + LENGTH_AT;
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    let length = field.map_or(0, |field| usize::from(u16::from_le_bytes(*field)));
    length.min(PAGE_LEN - page.unit_start() - UNIT_HEADER)
}

impl WriteKey {
    fn take(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
    }
}

impl UnitKind {
    fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Spill => 2,
        }
    }
}

fn short(tag: &[u8; 16]) -> [u8; 8] {
    *tag.first_chunk().unwrap_or(&[0; 8])
}

// A panic elsewhere cannot leave these caches half changed, so a poisoned lock is still good.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::layout::DATA_PAYLOAD;
    use proptest::prelude::*;

    fn cipher() -> UnitCipher {
        UnitCipher::new(FileId::from_bytes([7; 16]), Secret::filled(|k| k.fill(9)))
    }

    #[test]
    fn a_unit_opens_only_where_it_was_sealed() {
        let (cipher, place) = (cipher(), UnitPlace::data(PageNo(5)));
        let (mut page, mut out) = ([0; PAGE_LEN], [0; DATA_PAYLOAD]);
        let tag = cipher.seal(place, &[1; 12], b"contents", &mut page).unwrap();
        let opened = cipher.open(place, &page, &mut out).unwrap();
        assert_eq!(opened, Opened::Present { length: 8, tag });
        assert_eq!(&out[..8], b"contents");
        for other in [UnitPlace::data(PageNo(6)), UnitPlace::spill(PageNo(5))] {
            assert!(cipher.open(other, &page, &mut out).is_err());
        }
        let foreign = UnitCipher::new(FileId::from_bytes([8; 16]), Secret::filled(|k| k.fill(9)));
        assert!(foreign.open(place, &page, &mut out).is_err());
    }

    #[test]
    fn zeros_are_absent_and_nothing_else_is() {
        let (cipher, place) = (cipher(), UnitPlace::data(PageNo(5)));
        let (mut page, mut out) = ([0; PAGE_LEN], [0; DATA_PAYLOAD]);
        assert_eq!(cipher.open(place, &page, &mut out).unwrap(), Opened::Absent);
        page[PAGE_LEN - 1] = 1;
        assert!(cipher.open(place, &page, &mut out).is_err());
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_header_and_ciphertext_is_noticed(
            length in 0usize..=DATA_PAYLOAD, at in 0usize..PAGE_LEN, bit in 0u8..8
        ) {
            let (cipher, place) = (cipher(), UnitPlace::data(PageNo(1)));
            let (mut page, mut out) = (vec![0; PAGE_LEN], vec![0; DATA_PAYLOAD]);
            let payload = vec![0x5a; length];
            cipher.seal(place, &[3; 12], &payload, &mut page).unwrap();
            let at = at % (UNIT_HEADER + length);
            page[at] ^= 1 << bit;
            prop_assert!(cipher.open(place, &page, &mut out).is_err());
        }
    }
}
