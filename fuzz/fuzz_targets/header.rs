//! Header slots, their recipients, and the choice between the two slots of page 0.

#![no_main]

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::hash::{Label, derive};
use kmsfs::crypto::secret::Secret;
use kmsfs::envelope::{
    FileHeader, FileKeys, HeaderFlags, Opaque, RECORD_LEN, Recipient, Recipients, Seal,
    SessionWord, UnverifiedHeader, Wrapped,
};
use kmsfs::id::{FileId, KeyId, MaterialId};
use kmsfs::volume::backing::memory::MemoryFile;
use kmsfs::volume::content::{Access, Content, KeySource, Shared};
use kmsfs_fuzz::{id, key, one_bit_off, other_key, record, sealed, with_crc, within};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"KMSFSv1\0";
const PAGE: usize = 4096;
/// A header is copied a few times with its recipients.
const MEMORY: usize = 16 * 1024;

type Slot = [u8; RECORD_LEN];

fuzz_target!(|input: &[u8]| {
    let (first, second) = (record(input), record(input.get(RECORD_LEN..).unwrap_or_default()));
    one_slot(first, input);
    for (slots, good) in [
        ([seal(first), second], [true, false]),
        ([first, seal(second)], [false, true]),
        ([seal(first), seal(second)], [true, true]),
        ([with_crc(first), with_crc(second)], [false, false]),
    ] {
        two_slots(slots, good, input);
    }
    let mut fields = Unstructured::new(input);
    if let Ok(Some(header)) = Fields::arbitrary(&mut fields).map(Fields::header) {
        round_trip(&header);
    }
});

fn keys(slot: &Slot) -> FileKeys {
    FileKeys::new(FileId::from_bytes(id(slot)), key())
}

fn seal(slot: Slot) -> Slot {
    let file = id(&slot);
    let mac_key = derive(&key(), &file, Label::FileHeader);
    sealed(slot, MAGIC, keys(&slot).commitment(), &mac_key)
}

fn one_slot(slot: Slot, input: &[u8]) {
    let good = seal(slot);
    for forged in [slot, with_crc(slot), one_bit_off(good, input)] {
        if let Ok(parsed) = within(MEMORY, || UnverifiedHeader::parse(&forged)) {
            assert_eq!(parsed.verify(&keys(&forged)).is_ok(), forged == seal(forged));
        }
    }
    let Ok(parsed) = within(MEMORY, || UnverifiedHeader::parse(&good)) else { return };
    let header = parsed.verify(&keys(&good)).expect("its own keys made it");
    assert_eq!(parsed.claims(), &header);
    round_trip(&header);
    for foreign in [
        FileKeys::new(header.file, other_key()),
        FileKeys::new(FileId::from_bytes([0xff; 16]), key()),
    ] {
        assert!(header.file == FileId::from_bytes([0xff; 16]) || parsed.verify(&foreign).is_err());
    }
}

fn round_trip(header: &FileHeader) {
    let keys = FileKeys::new(header.file, key());
    let bytes = header.encode(&keys);
    let again = UnverifiedHeader::parse(&bytes).expect("an encoded header parses");
    assert_eq!(&again.verify(&keys).expect("its own keys made it"), header);
}

/// Opens a file with these slots: the newest authentic one counts, and nothing else.
fn two_slots(slots: [Slot; 2], good: [bool; 2], input: &[u8]) {
    let mut page = slots.concat();
    page.resize(PAGE, 0);
    let size = input.first().map_or(0, |byte| usize::from(*byte) * 12);
    page.resize(PAGE + size, 0);
    let authentic = |slot: &Slot| {
        let parsed = UnverifiedHeader::parse(slot).ok()?;
        parsed.verify(&keys(slot)).ok()
    };
    let headers: Vec<_> = slots.iter().filter_map(authentic).collect();
    let newest = headers.iter().map(|header| header.sequence).max();
    for (slot, good) in slots.iter().zip(good) {
        assert!(good || authentic(slot).is_none() || *slot == seal(*slot));
    }
    let file = Arc::new(MemoryFile::new(page.clone()));
    let content = within(64 * 1024, || {
        Content::over(file.clone(), Arc::new(Fixed), Arc::new(Shared::default()), Access::ReadOnly)
    });
    if let Ok(content) = content {
        let header = content.header();
        assert_eq!(header.as_ref().map(|header| header.sequence), newest);
        assert!(header.is_none_or(|header| headers.contains(&header)));
    }
    assert_eq!(file.bytes(), page, "a reader changes nothing");
}

struct Fixed;

impl KeySource for Fixed {
    fn create(&self) -> kmsfs::volume::Result<(FileId, Secret<32>, Recipient)> {
        Err(kmsfs::volume::VolumeError::ReadOnly)
    }

    fn unwrap(&self, _claims: &FileHeader) -> kmsfs::volume::Result<Secret<32>> {
        Ok(key())
    }
}

/// Key, material, and an opaque wrap or none.
type Named<'a> = ([u8; 16], [u8; 16], Option<&'a [u8]>);

struct Fields<'a> {
    file: [u8; 16],
    sequence: u64,
    flags: [bool; 3],
    size: u64,
    session: i64,
    mtime: i64,
    recipients: Vec<Named<'a>>,
}

impl<'a> Arbitrary<'a> for Fields<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            file: input.arbitrary()?,
            sequence: input.arbitrary()?,
            flags: input.arbitrary()?,
            size: input.arbitrary()?,
            session: input.arbitrary()?,
            mtime: input.arbitrary()?,
            recipients: input.arbitrary()?,
        })
    }
}

impl Fields<'_> {
    fn header(self) -> Option<FileHeader> {
        let [sparse, xattrs, open] = self.flags;
        let recipients = self.recipients.into_iter().map(|(key, material, opaque)| {
            Some(Recipient {
                key: KeyId::from_bytes(key),
                material: MaterialId::from_bytes(material),
                wrapped: match opaque {
                    Some(bytes) => Wrapped::Opaque(Opaque::new(bytes.to_vec()).ok()?),
                    None => Wrapped::Kms([key[0]; 72]),
                },
            })
        });
        let file = FileId::from_bytes(self.file);
        (!file.is_zero()).then_some(())?;
        Some(FileHeader {
            file,
            sequence: self.sequence,
            flags: HeaderFlags { sparse, xattrs, open },
            seal: Seal {
                size: self.size,
                session: SessionWord::from_bits(self.session),
                mtime: self.mtime,
            },
            recipients: Recipients::new(recipients.collect::<Option<_>>()?).ok()?,
        })
    }
}
