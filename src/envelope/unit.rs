//! One crypto unit: the contents of one backing page, and its nonce (FORMAT section 5).
//!
//! `nonce 24 | tag 16 | length u16 | kind u8 | flags u8 | ciphertext | zeros to the end of the page`.
//! The unit of page 0 starts behind the header slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::layout::{GROUP_BLOCKS, Page, PageNo, UNIT_HEADER};
use super::{EnvelopeError, FORMAT, SUITE};
use crate::crypto::bulk::BulkKey;
use crate::crypto::secret::Secret;
use crate::crypto::xaes;
use crate::crypto::{CryptoError, Nonce, Tag, random};
use crate::id::FileId;

/// Bytes of a unit before its ciphertext.
pub const SEALED_UNIT_HEADER: usize = UNIT_HEADER;

/// Units that one first half of a nonce serves (R11).
const UNITS_PER_PREFIX: u32 = 1 << 24;
/// Derived keys kept for reading: a file has one for each daemon run that wrote to it.
const READ_KEYS: usize = 8;
/// The data pages of the longest group and its spill page: what one request seals at a time.
const AT_ONCE: usize = 75;
const _: () = assert!(AT_ONCE as u64 == GROUP_BLOCKS + 1);
const AAD_LEN: usize = 36;
/// Where in a unit its tag stands, and its length.
const TAG_AT: usize = 24;
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
    // A panic elsewhere cannot leave these caches half changed.
    writing: RwLock<Option<Arc<WriteKey>>>,
    reading: RwLock<Vec<(Nonce, Arc<BulkKey>)>>,
}

struct WriteKey {
    prefix: Nonce,
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

    /// Seals `payload` as the unit of `page` and returns the first 8 bytes of the tag. What the page
    /// has before its unit stays.
    ///
    /// # Errors
    /// `Oversized` for more than the page has room for; `Crypto` if the system gives no randomness.
    pub fn seal(
        &self,
        place: UnitPlace,
        nonces: &mut Nonces,
        payload: &[u8],
        page: &mut Page,
    ) -> Result<[u8; 8], EnvelopeError> {
        let (header, room) = place
            .page
            .unit_mut(page)
            .split_first_chunk_mut::<UNIT_HEADER>()
            .expect("a page is longer than the header of its unit");
        let oversized = EnvelopeError::Oversized("the payload of a page");
        let (ciphertext, rest) = room.split_at_mut_checked(payload.len()).ok_or(oversized)?;
        let length = u16::try_from(payload.len()).map_err(|_| oversized)?;
        let key = self.write_key()?;
        let nonce = nonces.take()?.use_up();
        let tag = key.key.seal_to(&nonce, &self.aad(place, length), payload, ciphertext)?;
        rest.fill(0);
        header[..12].copy_from_slice(&key.prefix);
        header[12..24].copy_from_slice(&nonce);
        header[TAG_AT..LENGTH_AT].copy_from_slice(&tag);
        header[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_le_bytes());
        header[LENGTH_AT + 2..].copy_from_slice(&[place.kind.code(), 0]);
        Ok(short(&tag))
    }

    /// Opens the unit of `page` into `out`.
    ///
    /// # Errors
    /// `NotAuthentic` for anything but zeros that was not sealed at this place of this file;
    /// nothing is left in `out` then.
    pub fn open(
        &self,
        place: UnitPlace,
        page: &Page,
        out: &mut Page,
    ) -> Result<Opened, EnvelopeError> {
        let bad = EnvelopeError::NotAuthentic("page");
        let (header, room) = place.page.unit(page).split_first_chunk::<UNIT_HEADER>().ok_or(bad)?;
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
        aad[..4].copy_from_slice(b"unit");
        aad[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        aad[6..8].copy_from_slice(&SUITE.to_le_bytes());
        aad[8..10].copy_from_slice(&[place.kind.code(), 0]);
        aad[10..12].copy_from_slice(&length.to_le_bytes());
        aad[12..28].copy_from_slice(self.file.as_bytes());
        aad[28..].copy_from_slice(&place.page.0.to_le_bytes());
        aad
    }

    fn write_key(&self) -> Result<Arc<WriteKey>, EnvelopeError> {
        if let Some(key) = &*self.writing.read()
            && key.take()
        {
            return Ok(key.clone());
        }
        let prefix = FreshNonce::draw()?.use_up();
        let key = self.read_key(&prefix);
        let fresh = Arc::new(WriteKey { prefix, key, left: AtomicU32::new(UNITS_PER_PREFIX - 1) });
        *self.writing.write() = Some(fresh.clone());
        Ok(fresh)
    }

    fn read_key(&self, prefix: &Nonce) -> Arc<BulkKey> {
        if let Some((_, key)) = self.reading.read().iter().find(|(known, _)| known == prefix) {
            return key.clone();
        }
        let key = Arc::new(BulkKey::new(&xaes::derive_key(&self.root, prefix)));
        let mut cache = self.reading.write();
        if cache.len() >= READ_KEYS {
            cache.remove(0);
        }
        cache.push((*prefix, key.clone()));
        key
    }
}

/// The length that a page's unit claims, authentic or not: at most a page's payload.
pub fn claimed_length(number: PageNo, page: &Page) -> usize {
    let unit = number.unit(page);
    let claimed = u16::from_le_bytes([unit[LENGTH_AT], unit[LENGTH_AT + 1]]);
    usize::from(claimed).min(unit.len() - UNIT_HEADER)
}

/// The first 8 bytes of the tag that a page's unit claims: what the entry of its tail is bound to.
pub fn binding_of(number: PageNo, page: &Page) -> [u8; 8] {
    let unit = number.unit(page);
    *unit[TAG_AT..].first_chunk().expect("a page is longer than the header of its unit")
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

fn short(tag: &Tag) -> [u8; 8] {
    *tag.first_chunk().expect("a tag has 16 bytes")
}

/// Fresh nonces for the units of one request (R11): the random halves of nonces are drawn here and
/// nowhere else.
///
/// Drawn in one call, because the generator looks at its age and its process in each. Only sealing
/// takes one out, and by that it is gone: none can be named, kept, copied or made of zeros.
pub struct Nonces {
    drawn: [Nonce; AT_ONCE],
    left: usize,
}

/// One half of a nonce, to be used once.
struct FreshNonce(Nonce);

impl Nonces {
    /// Nonces for `units` units.
    ///
    /// # Errors
    /// `Random` if the system gives no randomness.
    pub fn draw(units: usize) -> Result<Self, CryptoError> {
        let (mut drawn, left) = ([[0; 12]; AT_ONCE], units.clamp(1, AT_ONCE));
        random::fill_nonces(drawn[..left].as_flattened_mut())?;
        Ok(Self { drawn, left })
    }

    /// The next one; drawn anew for more units than were asked for.
    fn take(&mut self) -> Result<FreshNonce, CryptoError> {
        if self.left == 0 {
            *self = Self::draw(1)?;
        }
        self.left -= 1;
        Ok(FreshNonce(self.drawn[self.left]))
    }
}

impl FreshNonce {
    /// A nonce by itself.
    fn draw() -> Result<Self, CryptoError> {
        Nonces::draw(1)?.take()
    }

    /// The bytes, for the one unit or derived key that they are for.
    fn use_up(self) -> Nonce {
        self.0
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces").field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::envelope::layout::{DATA_PAYLOAD, FIRST_PAYLOAD, HEADER_AREA, PAGE_LEN};
    use proptest::prelude::*;

    fn cipher() -> UnitCipher {
        UnitCipher::new(FileId::from_bytes([7; 16]), Secret::filled(|k| k.fill(9)))
    }

    fn sealed(cipher: &UnitCipher, place: UnitPlace, payload: &[u8]) -> (Page, [u8; 8]) {
        let mut page = [0; PAGE_LEN];
        let tag = cipher.seal(place, &mut Nonces::draw(1).unwrap(), payload, &mut page).unwrap();
        (page, tag)
    }

    #[test]
    fn a_unit_opens_only_where_it_was_sealed() {
        let (cipher, place) = (cipher(), UnitPlace::data(PageNo(5)));
        let (page, tag) = sealed(&cipher, place, b"contents");
        let mut out = [0; PAGE_LEN];
        let opened = cipher.open(place, &page, &mut out).unwrap();
        assert_eq!(opened, Opened::Present { length: 8, tag });
        assert_eq!(binding_of(PageNo(5), &page), tag);
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
        let (mut page, mut out) = ([0; PAGE_LEN], [0; PAGE_LEN]);
        assert_eq!(cipher.open(place, &page, &mut out).unwrap(), Opened::Absent);
        page[PAGE_LEN - 1] = 1;
        assert!(cipher.open(place, &page, &mut out).is_err());
    }

    #[test]
    fn what_has_no_room_is_refused_and_not_cut() {
        let cipher = cipher();
        for (number, room) in [(0, FIRST_PAYLOAD), (5, DATA_PAYLOAD)] {
            let place = UnitPlace::data(PageNo(number));
            let (page, _) = sealed(&cipher, place, &vec![1; room]);
            assert_eq!(claimed_length(PageNo(number), &page), room);
            let (mut page, mut nonces) = ([7; PAGE_LEN], Nonces::draw(1).unwrap());
            let refused = cipher.seal(place, &mut nonces, &vec![1; room + 1], &mut page);
            assert!(matches!(refused, Err(EnvelopeError::Oversized(_))));
        }
    }

    #[test]
    fn the_header_slots_are_not_part_of_the_unit() {
        let (cipher, place) = (cipher(), UnitPlace::data(PageNo(0)));
        let (mut page, mut out) = ([7; PAGE_LEN], [0; PAGE_LEN]);
        cipher.seal(place, &mut Nonces::draw(1).unwrap(), b"contents", &mut page).unwrap();
        assert_eq!(page[..HEADER_AREA], [7; HEADER_AREA]);
        page[..HEADER_AREA].fill(0);
        assert!(cipher.open(place, &page, &mut out).is_ok());
    }

    #[test]
    fn the_same_bytes_are_sealed_under_another_nonce_each_time() {
        let (cipher, place) = (cipher(), UnitPlace::data(PageNo(5)));
        let halves = |page: Page| page[..24].to_vec();
        let units: Vec<_> = (0..3).map(|_| halves(sealed(&cipher, place, b"same").0)).collect();
        assert!(units.iter().all(|unit| unit[..12] == units[0][..12]), "one half for many units");
        assert!(units[0] != units[1] && units[1] != units[2] && units[0] != units[2]);
    }

    proptest! {
        #[test]
        fn every_flipped_bit_of_header_and_ciphertext_is_noticed(
            length in 0usize..=DATA_PAYLOAD, at in 0usize..PAGE_LEN, bit in 0u8..8
        ) {
            let (cipher, place) = (cipher(), UnitPlace::data(PageNo(1)));
            let (mut page, _) = sealed(&cipher, place, &vec![0x5a; length]);
            let at = at % (UNIT_HEADER + length);
            page[at] ^= 1 << bit;
            prop_assert!(cipher.open(place, &page, &mut [0; PAGE_LEN]).is_err());
        }
    }

    #[test]
    fn no_nonce_is_zero_or_comes_twice_however_many_were_asked_for() {
        let mut seen = HashSet::from([[0; 12]]);
        for asked in [0, 1, 2, AT_ONCE, AT_ONCE + 1] {
            let mut nonces = Nonces::draw(asked).unwrap();
            for taken in 0..asked + 3 {
                let nonce = nonces.take().unwrap().use_up();
                assert!(seen.insert(nonce), "{taken} of {asked}");
            }
        }
    }
}
