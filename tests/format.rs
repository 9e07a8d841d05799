//! The format page against the code, and hostile bytes against every parser.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use kmsfs::crypto::hash::sha256;
use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::layout::{Group, PageNo, backing_len, pages_of, plain_size};
use kmsfs::envelope::{
    DirDescriptor, DirKeys, DirPlace, Entry, FileHeader, FileKeys, HeaderFlags, Kept, OPAQUE_MAX,
    Opaque, Opened, Places, RECORD_LEN, Recipient, Recipients, Seal, SessionWord, ShownTime,
    SpillPage, UnitPlace, UnverifiedHeader, UnverifiedVolume, VolumeDescriptor, VolumeFeatures,
    VolumeKeys, Wrapped,
};
use kmsfs::id::{DirId, FileId, KeyId, MaterialId, VolumeId};
use proptest::prelude::*;

const DOCUMENT: &str = include_str!("../docs/FORMAT.md");

/// The rows of numbers below a heading, until the next one.
fn numbers(heading: &str) -> Vec<Vec<u64>> {
    let (_, after) = DOCUMENT.split_once(heading).expect("the heading is there");
    let rows = after.lines().skip_while(|line| !line.starts_with('|'));
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').filter_map(|cell| cell.trim().parse().ok()).collect::<Vec<_>>())
        .filter(|row| !row.is_empty())
        .collect()
}

/// The bytes of a worked example on the page.
fn worked(example: &str) -> Vec<u8> {
    let (_, after) = DOCUMENT.split_once(example).unwrap();
    let line = after.lines().find(|line| line.starts_with("    ")).unwrap();
    let digits: String = line.split_whitespace().collect();
    let bytes = (0..digits.len()).step_by(2);
    bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn key() -> Secret<32> {
    Secret::filled(|key| key.fill(5))
}

fn recipient() -> Recipient {
    let (key, material) = (KeyId::from_bytes([1; 16]), MaterialId::from_bytes([2; 16]));
    Recipient { key, material, wrapped: Wrapped::Kms([3; 72]) }
}

fn opaque(ciphertext: &[u8]) -> Recipient {
    let material = sha256(&[b"material-1"]).first_chunk().copied().unwrap();
    Recipient {
        key: KeyId::from_bytes([1; 16]),
        material: MaterialId::from_bytes(material),
        wrapped: Wrapped::Opaque(Opaque::new(ciphertext.to_vec()).unwrap()),
    }
}

fn header() -> ([u8; RECORD_LEN], FileKeys) {
    header_for(Recipients::new(vec![recipient(); 3]).unwrap())
}

fn header_for(recipients: Recipients) -> ([u8; RECORD_LEN], FileKeys) {
    let file = FileId::from_bytes([7; 16]);
    let keys = FileKeys::new(file, key());
    let flags = HeaderFlags { sparse: true, xattrs: false, open: false };
    let seal = Seal { size: 11, session: SessionWord::from_bits(12), mtime: 13 };
    let header = FileHeader { file, sequence: 9, flags, seal, recipients };
    (header.encode(&keys), keys)
}

fn directory() -> ([u8; RECORD_LEN], DirKeys) {
    directory_for(recipient())
}

fn directory_for(recipient: Recipient) -> ([u8; RECORD_LEN], DirKeys) {
    let dir = DirId::from_bytes([8; 16]);
    let keys = DirKeys::new(dir, &key());
    let policy = KeyId::from_bytes([4; 16]);
    let descriptor = DirDescriptor {
        dir,
        sequence: 3,
        policy,
        inherited: true,
        cross: kmsfs::envelope::CrossMode::Exdev,
        previous: vec![policy; 2],
        recipient,
        places: None,
        policy_sequence: 0,
    };
    (descriptor.encode(&keys), keys)
}

/// With a place: `previous` former keys.
fn placed_directory(recipient: Recipient, previous: usize) -> (DirDescriptor, DirKeys) {
    let (bytes, keys) = directory_for(recipient);
    let dir = DirDescriptor::verify(&bytes, &keys).unwrap();
    let from = DirPlace::below(DirId::from_bytes([9; 16]), b"from");
    let to = DirPlace::below(DirId::from_bytes([9; 16]), b"to");
    let previous = vec![dir.policy; previous];
    let places = Some(Places { from, to });
    (DirDescriptor { previous, places, policy_sequence: 5, ..dir }, keys)
}

fn volume() -> [u8; RECORD_LEN] {
    volume_for(recipient())
}

fn volume_for(recipient: Recipient) -> [u8; RECORD_LEN] {
    let volume = VolumeId::from_bytes([6; 16]);
    let descriptor = VolumeDescriptor {
        volume,
        sequence: 1,
        features: VolumeFeatures::ALL,
        created: 2,
        recipient,
    };
    descriptor.encode(&VolumeKeys::new(volume, &key()))
}

#[test]
fn worked_sizes_of_the_page_are_those_of_the_code() {
    let rows = numbers("Worked sizes:");
    assert!(rows.len() >= 12, "{rows:?}");
    for row in rows {
        let [plain, backing, pages] = row[..] else { panic!("three columns: {row:?}") };
        assert_eq!((backing_len(plain), pages_of(plain)), (backing, pages), "plain {plain}");
        assert_eq!(plain_size(backing), (plain, true));
    }
}

#[test]
fn the_worked_unit_of_the_page_opens() {
    let unit = worked("Worked unit:");
    let cipher = FileKeys::new(FileId::from_bytes([7; 16]), key()).unit_cipher();
    let (mut page, mut out) = ([0; 4096], [0; 4096]);
    page[..unit.len()].copy_from_slice(&unit);
    let opened = cipher.open(UnitPlace::data(PageNo(5)), &page, &mut out).unwrap();
    assert!(matches!(opened, Opened::Present { length: 8, .. }));
    assert_eq!(&out[..8], b"contents");
}

#[test]
fn records_stand_at_the_offsets_of_the_page() {
    let (slot, keys) = header();
    assert_eq!(&slot[..8], b"KMSFSv1\0");
    assert_eq!(slot[12..16], [1, 3, 1, 0]);
    assert_eq!(slot[16..24], 9_u64.to_le_bytes());
    assert_eq!(slot[24..40], [7; 16]);
    assert_eq!(slot[40..72], *keys.commitment());
    assert_eq!(slot[72..80], 11_u64.to_le_bytes());
    assert_eq!(slot[88..96], 13_i64.to_le_bytes());
    assert_eq!(slot[96 + 4..96 + 20], [1; 16]);
    assert_eq!(slot[96 + 36..96 + 108], [3; 72]);
    let (dir, _) = directory();
    assert_eq!(&dir[..8], b"KMSFSd1\0");
    assert_eq!(dir[12..16], [1, 1, 2, 0]);
    assert_eq!(dir[24..40], [8; 16]);
    assert_eq!(dir[72..88], [4; 16]);
    assert_eq!(dir[136 + 4..136 + 20], [1; 16]);
    let (placed, keys) = placed_directory(recipient(), 2);
    let bytes = placed.encode(&keys);
    // A reader from before takes it for one of a later format.
    assert_eq!(bytes[8..10], 2_u16.to_le_bytes());
    assert_eq!(bytes[12..16], [1, 1, 2, 0]);
    assert_eq!(bytes[72..88], [4; 16]);
    let place = [&b"kmsfs/1/dir/place"[..], &[9; 16], b"from"].concat();
    assert_eq!(bytes[88..104], sha256(&[&place])[..16]);
    assert_eq!(bytes[120..124], 5_u32.to_le_bytes());
    assert_eq!(bytes[124..156], [4; 32]);
    assert_eq!(bytes[156 + 4..156 + 20], [1; 16]);
    let volume = volume();
    assert_eq!(&volume[..8], b"KMSFSV1\0");
    assert_eq!(volume[24..40], [6; 16]);
    assert_eq!(volume[80 + 4..80 + 20], [1; 16]);
}

#[test]
fn the_worked_opaque_recipient_of_the_page_is_what_a_slot_holds() {
    let worked = worked("Worked opaque recipient:");
    let (slot, keys) = header_for(opaque(b"opaque").into());
    assert_eq!(slot[96..96 + worked.len()], worked);
    assert!(slot[96 + worked.len()..476].iter().all(|byte| *byte == 0));
    let header = UnverifiedHeader::parse(&slot).unwrap().verify(&keys).unwrap();
    assert_eq!(*header.recipients, [opaque(b"opaque")]);
}

#[test]
fn the_worked_shown_time_of_the_page_is_the_record_of_the_code() {
    let keys = VolumeKeys::new(VolumeId::from_bytes([6; 16]), &key());
    let (ctime, mtime) = (Kept::new(30, 10), Kept::new(1_000_000_021, 21));
    let time = ShownTime { ino: 258, ctime, mtime };
    let record = time.encode(keys.times_key());
    assert_eq!(worked("Worked shown time,"), record);
    assert_eq!(ShownTime::parse_all(&record, keys.times_key()).collect::<Vec<_>>(), [time]);
}

/// Former keys and the wrap share the rest of a descriptor.
#[test]
fn a_descriptor_with_places_has_room_for_the_longest_recipient_and_a_former_key() {
    for (length, previous) in [(OPAQUE_MAX, 1), (284, 2), (268, 3)] {
        let (placed, keys) = placed_directory(opaque(&vec![4; length]), previous);
        assert!(placed.fits());
        assert_eq!(DirDescriptor::verify(&placed.encode(&keys), &keys).unwrap(), placed);
        let (more, _) = placed_directory(opaque(&vec![4; length]), previous + 1);
        assert!(!more.fits());
    }
}

#[test]
fn the_longest_opaque_recipient_fits_into_every_record() {
    let longest = opaque(&[4; OPAQUE_MAX]);
    let (slot, keys) = header_for(longest.clone().into());
    let header = UnverifiedHeader::parse(&slot).unwrap().verify(&keys).unwrap();
    assert_eq!(&*header.recipients, std::slice::from_ref(&longest));
    let (dir, keys) = directory_for(longest.clone());
    assert_eq!(DirDescriptor::verify(&dir, &keys).unwrap().recipient, longest);
    let volume = volume_for(longest.clone());
    assert_eq!(UnverifiedVolume::parse(&volume).unwrap().claims().recipient, longest);
}

#[test]
fn a_recipient_of_another_type_is_of_a_newer_format() {
    let newer = |changes: &[(usize, u8)]| {
        UnverifiedHeader::parse(&mutated(header().0, changes)).unwrap_err().to_string()
    };
    assert!(newer(&[(96, 3)]).contains("newer format"));
    assert!(newer(&[(97, 1)]).contains("malformed"));
    assert!(newer(&[(98, 72)]).contains("malformed"));
    let (slot, _) = header_for(opaque(b"opaque").into());
    for (length, at) in [(0, 98), (1, 99), (0xff, 99)] {
        let changed = mutated(slot, &[(98, 0), (at, length)]);
        let accepted = UnverifiedHeader::parse(&changed).is_ok();
        assert_eq!(accepted, (at, length) == (99, 1), "256 fits, 0 and 65280 do not");
    }
}

/// A record with some bytes changed, and its CRC put right so that the parser goes on.
fn mutated(mut bytes: [u8; RECORD_LEN], changes: &[(usize, u8)]) -> [u8; RECORD_LEN] {
    for (at, byte) in changes {
        bytes[at % RECORD_LEN] = *byte;
    }
    let crc = crc32fast::hash(&bytes[..508]);
    bytes[508..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn changed_records_are_refused_and_never_panic(
        changes in prop::collection::vec((0usize..508, any::<u8>()), 1..6)
    ) {
        let (slot, keys) = header();
        let changed = mutated(slot, &changes);
        if let Ok(parsed) = UnverifiedHeader::parse(&changed) {
            prop_assert_eq!(parsed.verify(&keys).is_ok(), changed == slot);
        }
        let (dir, keys) = directory();
        let changed = mutated(dir, &changes);
        let _ = DirDescriptor::parse(&changed);
        prop_assert_eq!(DirDescriptor::verify(&changed, &keys).is_ok(), changed == dir);
        let (placed, keys) = placed_directory(recipient(), 3);
        let placed = placed.encode(&keys);
        let changed = mutated(placed, &changes);
        let _ = DirDescriptor::parse(&changed);
        prop_assert_eq!(DirDescriptor::verify(&changed, &keys).is_ok(), changed == placed);
        let changed = mutated(volume(), &changes);
        if let Ok(parsed) = UnverifiedVolume::parse(&changed) {
            let keys = VolumeKeys::new(VolumeId::from_bytes([6; 16]), &key());
            prop_assert_eq!(parsed.verify(&keys).is_ok(), changed == volume());
        }
    }

    #[test]
    fn opaque_recipients_come_back_and_no_change_goes_unnoticed(
        ciphertext in prop::collection::vec(any::<u8>(), 1..=OPAQUE_MAX),
        with_ours: bool,
        changes in prop::collection::vec((0usize..508, any::<u8>()), 1..6),
    ) {
        let mut wanted = vec![opaque(&ciphertext)];
        let ours = with_ours.then(recipient);
        if let Ok(both) = Recipients::new(wanted.iter().cloned().chain(ours).collect()) {
            wanted = both.to_vec();
        }
        let (slot, keys) = header_for(Recipients::new(wanted.clone()).unwrap());
        let header = UnverifiedHeader::parse(&slot).unwrap().verify(&keys).unwrap();
        prop_assert_eq!(header.recipients.to_vec(), wanted);
        let changed = mutated(slot, &changes);
        if let Ok(parsed) = UnverifiedHeader::parse(&changed) {
            prop_assert_eq!(parsed.verify(&keys).is_ok(), changed == slot);
        }
        let (dir, keys) = directory_for(opaque(&ciphertext));
        let changed = mutated(dir, &changes);
        prop_assert_eq!(DirDescriptor::verify(&changed, &keys).is_ok(), changed == dir);
        let changed = mutated(volume_for(opaque(&ciphertext)), &changes);
        let _ = UnverifiedVolume::parse(&changed);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4200)) {
        let _ = UnverifiedVolume::parse(&bytes);
        if let Some(record) = bytes.first_chunk() {
            let _ = UnverifiedHeader::parse(record);
            let _ = DirDescriptor::parse(record);
        }
        let mut plain = [0; 4052];
        plain.iter_mut().zip(&bytes).for_each(|(to, from)| *to = *from);
        for group in [Group(0), Group(1)] {
            let page = SpillPage::from_plain(group, &plain);
            for index in 0..80 {
                let Entry { tail, .. } = page.entry(index);
                prop_assert!(tail.len() <= 2092);
            }
        }
        let keys = DirKeys::new(DirId::from_bytes([8; 16]), &key());
        prop_assert!(keys.decode_name(&bytes).is_err());
        prop_assert!(keys.decode_link(&bytes).is_err());
        prop_assert!(keys.xattrs().decode_name(&String::from_utf8_lossy(&bytes)).is_err());
        prop_assert!(keys.xattrs().open_value(b"user.a", &bytes).is_err());
    }

    #[test]
    fn names_links_and_attributes_come_back(name in prop::collection::vec(1u8.., 1..255)) {
        let keys = DirKeys::new(DirId::from_bytes([8; 16]), &key());
        let text = match keys.encode_name(&name) {
            kmsfs::envelope::EncodedName::Inline(text) => text,
            kmsfs::envelope::EncodedName::Long { contents, .. } => contents,
        };
        prop_assert!(keys.decode_name(text.as_bytes()).unwrap() == name);
        prop_assert!(keys.decode_link(text.as_bytes()).is_err(), "a name is no link");
        let link = keys.encode_link(&name);
        prop_assert!(keys.decode_link(link.as_bytes()).unwrap() == name);
        let attribute = keys.xattrs().encode_name(&name);
        prop_assert_eq!(keys.xattrs().decode_name(&attribute).unwrap(), name);
    }
}

#[test]
fn the_worked_unit_is_xaes_by_the_book() {
    use kmsfs::crypto::hash::{Label, derive};
    let root = derive(&key(), &[7; 16], Label::FileUnit);
    let nonce = [[0x0a; 12], [0x0b; 12]].concat();
    let mut aad = b"unit".to_vec();
    for part in [&[1, 0, 1, 0, 1, 0, 8, 0][..], &[7; 16], &5_u64.to_le_bytes()] {
        aad.extend_from_slice(part);
    }
    assert_eq!(aad.len(), 36);
    let mut text = *b"contents";
    let xaes = kmsfs::crypto::xaes::XaesKey::new(&root);
    let tag = xaes.seal_in_place(&nonce.try_into().unwrap(), &aad, &mut text).unwrap();
    assert_eq!(
        worked("Worked unit:"),
        [&[0x0a; 12][..], &[0x0b; 12], &tag, &[8, 0, 1, 0], &text].concat()
    );
}
