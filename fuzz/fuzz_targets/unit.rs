//! Pages, the lengths that they claim, and the arithmetic of sizes.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::Label;
use kmsfs::crypto::bulk::BulkKey;
use kmsfs::crypto::hash::derive;
use kmsfs::crypto::xaes;
use kmsfs::envelope::layout::{
    Block, MAX_SIZE, PAGE, PAGE_LEN, Page, PageNo, PageRole, UNIT_HEADER, backing_len, last_block,
    pages_of, plain_size,
};
use kmsfs::envelope::{FileKeys, Nonces, Opened, UnitCipher, UnitKind, UnitPlace, claimed_length};
use kmsfs::id::FileId;
use kmsfs_fuzz::{key, other_key, within};
use libfuzzer_sys::fuzz_target;

const FILE: FileId = FileId::from_bytes([7; 16]);
/// A derived key of each kind is kept.
const MEMORY: usize = 16 * 1024;

struct Input<'a> {
    page: u64,
    spill: bool,
    /// What the unit says of itself, which need not be so.
    length: u16,
    kind: u8,
    flags: u8,
    flip: u16,
    size: u64,
    backing: u64,
    bytes: &'a [u8],
}

impl<'a> Arbitrary<'a> for Input<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            page: input.arbitrary()?,
            spill: input.arbitrary()?,
            length: input.arbitrary()?,
            kind: input.arbitrary()?,
            flags: input.arbitrary()?,
            flip: input.arbitrary()?,
            size: input.arbitrary()?,
            backing: input.arbitrary()?,
            bytes: input.bytes(input.len())?,
        })
    }
}

fuzz_target!(|input: &[u8]| {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(input)) else { return };
    sizes(input.backing, input.size);
    let cipher = FileKeys::new(FILE, key()).unit_cipher();
    let page = PageNo(input.page);
    let kind = if input.spill { UnitKind::Spill } else { UnitKind::Data };
    let place = UnitPlace { page, kind };
    raw(&cipher, place, &input);
    forged_lengths(&cipher, place, &input);
    round_trip(&cipher, place, &input);
});

/// A page with the fuzzer's bytes at the start of its unit.
fn page_of(place: UnitPlace, bytes: &[u8]) -> Page {
    let mut page = [0; PAGE_LEN];
    place.page.unit_mut(&mut page).iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    page
}

fn raw(cipher: &UnitCipher, place: UnitPlace, input: &Input<'_>) {
    let (page, mut out) = (page_of(place, input.bytes), [0; PAGE_LEN]);
    let opened = within(MEMORY, || cipher.open(place, &page, &mut out));
    let zeros = page.iter().all(|byte| *byte == 0);
    assert_eq!(opened.ok(), zeros.then_some(Opened::Absent), "nobody sealed it");
    assert!(out.iter().all(|byte| *byte == 0), "nothing is left behind");
    let most = PAGE_LEN - place.page.unit_start() - UNIT_HEADER;
    assert!(claimed_length(place.page, &page) <= most);
}

/// A unit that is authentic and lies about its length, kind or flags.
fn forged_lengths(cipher: &UnitCipher, place: UnitPlace, input: &Input<'_>) {
    let mut page = page_of(place, &[]);
    let room = place.page.unit(&page).len() - UNIT_HEADER;
    let payload = input.bytes.get(..input.bytes.len().min(room)).unwrap_or_default();
    let (prefix, nonce) = ([0xa; 12], [0xb; 12]);
    let root = derive(&key(), FILE.as_bytes(), Label::FileUnit);
    let bulk = BulkKey::new(&xaes::derive_key(&root, &prefix));
    let mut aad = b"unit".to_vec();
    aad.extend([1, 0, 1, 0, input.kind, input.flags]);
    aad.extend(input.length.to_le_bytes());
    aad.extend(FILE.as_bytes());
    aad.extend(place.page.0.to_le_bytes());
    let (head, body) = place.page.unit_mut(&mut page).split_at_mut(UNIT_HEADER);
    let ciphertext = body.get_mut(..payload.len()).expect("it was cut to the room");
    let tag = bulk.seal_to(&nonce, &aad, payload, ciphertext).expect("a page is short");
    let length = input.length.to_le_bytes();
    let fields = [&prefix[..], &nonce, &tag, &length, &[input.kind, input.flags]].concat();
    head.copy_from_slice(&fields);
    let code = if input.spill { 2 } else { 1 };
    let honest =
        (input.kind, input.flags) == (code, 0) && usize::from(input.length) == payload.len();
    let mut out = [0; PAGE_LEN];
    match within(MEMORY, || cipher.open(place, &page, &mut out)) {
        Ok(Opened::Present { length, tag: short }) => {
            assert!(honest && length == payload.len() && short == tag[..8]);
            assert_eq!(&out[..length], payload);
        }
        Ok(Opened::Absent) => panic!("it has a nonce"),
        Err(_) => assert!(!honest),
    }
}

fn round_trip(cipher: &UnitCipher, place: UnitPlace, input: &Input<'_>) {
    let mut page = page_of(place, &[]);
    let room = place.page.unit(&page).len() - UNIT_HEADER;
    let mut nonces = Nonces::draw(1).expect("the kernel has randomness");
    // No room for the payload: refused, not cut.
    let sealed = cipher.seal(place, &mut nonces, input.bytes, &mut page);
    if input.bytes.len() > room {
        assert!(sealed.is_err());
        return;
    }
    let tag = sealed.expect("there is room");
    let mut out = [0; PAGE_LEN];
    let length = input.bytes.len();
    assert_eq!(cipher.open(place, &page, &mut out), Ok(Opened::Present { length, tag }));
    assert_eq!(&out[..length], input.bytes);
    out.fill(0);
    let other = match place.kind {
        UnitKind::Data => UnitPlace::spill(place.page),
        UnitKind::Spill => UnitPlace::data(place.page),
    };
    // Not page 0: what of the page is its unit may be nothing there.
    let next = UnitPlace { page: PageNo(place.page.0.wrapping_add(2).max(1)), ..place };
    assert!(cipher.open(other, &page, &mut out).is_err());
    assert!(cipher.open(next, &page, &mut out).is_err());
    let stranger = FileKeys::new(FILE, other_key()).unit_cipher();
    assert!(stranger.open(place, &page, &mut out).is_err());
    let bit = usize::from(input.flip) % (8 * (UNIT_HEADER + length));
    place.page.unit_mut(&mut page)[bit / 8] ^= 1 << (bit % 8);
    assert!(cipher.open(place, &page, &mut out).is_err());
    assert!(out.iter().all(|byte| *byte == 0), "nothing is left behind");
}

fn sizes(backing: u64, size: u64) {
    // No filesystem has a longer file.
    let backing = backing.min(i64::MAX as u64);
    let (plain, exact) = plain_size(backing);
    assert_eq!(exact, backing == 0 || backing_len(plain) == backing);
    if let Some((block, length)) = last_block(plain) {
        assert!(block.data_page().0 < (backing / PAGE).max(1), "a page that is not there");
        assert!((1..=PAGE_LEN).contains(&length));
    }
    let size = size % (MAX_SIZE + 1);
    let backing = backing_len(size);
    assert_eq!(plain_size(backing), (size, true));
    assert_eq!(pages_of(size), backing / PAGE);
    let block = Block::of_offset(size);
    assert_eq!(block.data_page().role(), PageRole::Data(block));
    let group = block.group();
    assert!((group.first_block()..group.end_block()).contains(&block));
    assert!((block.index() as u64) < group.blocks());
}
