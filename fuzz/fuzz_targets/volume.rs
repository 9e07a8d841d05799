//! What belongs to the volume as a whole: its descriptor, the record of sessions of old volumes, the
//! list of shown times.

#![no_main]

use std::collections::HashMap;

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::hash::{Label, derive, hmac_sha256};
use kmsfs::envelope::{
    Counted, Opaque, RECORD_LEN, Recipient, ShownTime, StateRecord, UnverifiedVolume,
    VolumeDescriptor, VolumeFeatures, VolumeKeys, Wrapped,
};
use kmsfs::id::{KeyId, MaterialId, VolumeId};
use kmsfs_fuzz::{id, key, one_bit_off, other_key, record, sealed, with_crc, within};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"KMSFSV1\0";
const MEMORY: usize = 4 * 1024;
const NOW: i64 = 1_700_000_000_000_000_000;

type Bytes = [u8; RECORD_LEN];

fuzz_target!(|input: &[u8]| {
    descriptor(input);
    counted(input);
    times(input);
    let mut fields = Unstructured::new(input);
    if let Ok(Some(descriptor)) = Fields::arbitrary(&mut fields).map(Fields::descriptor) {
        round_trip(&descriptor);
    }
});

fn keys(bytes: &Bytes) -> VolumeKeys {
    VolumeKeys::new(VolumeId::from_bytes(id(bytes)), &key())
}

fn seal(bytes: Bytes) -> Bytes {
    let volume = id(&bytes);
    let commitment = derive::<32>(&key(), &volume, Label::VolumeCommit);
    let mac_key = derive(&key(), &volume, Label::VolumeDescriptor);
    sealed(bytes, MAGIC, commitment.expose(), &mac_key)
}

fn descriptor(input: &[u8]) {
    let bytes = record(input);
    let good = seal(bytes);
    assert!(input.len() == RECORD_LEN || UnverifiedVolume::parse(input).is_err());
    for forged in [bytes, with_crc(bytes), one_bit_off(good, input)] {
        if let Ok(parsed) = within(MEMORY, || UnverifiedVolume::parse(&forged)) {
            assert_eq!(parsed.verify(&keys(&forged)).is_ok(), forged == seal(forged));
        }
    }
    let Ok(parsed) = within(MEMORY, || UnverifiedVolume::parse(&good)) else { return };
    let descriptor = parsed.verify(&keys(&good)).expect("its own keys made it");
    assert_eq!(parsed.claims(), &descriptor);
    assert!(parsed.verify(&VolumeKeys::new(descriptor.volume, &other_key())).is_err());
    round_trip(&descriptor);
}

fn round_trip(descriptor: &VolumeDescriptor) {
    let keys = VolumeKeys::new(descriptor.volume, &key());
    let again = UnverifiedVolume::parse(&descriptor.encode(&keys)).expect("an encoded one parses");
    assert_eq!(&again.verify(&keys).expect("its own keys made it"), descriptor);
}

/// Plain JSON that anybody can have written.
fn counted(input: &[u8]) {
    let counted = within(16 * 1024 + 16 * input.len(), || Counted::parse(input, NOW));
    let record = counted.record();
    assert_eq!(record.word.bits(), counted.number);
    assert_eq!(record.unrecovered.len(), usize::from(counted.crashed > 0));
    let keys = VolumeKeys::new(VolumeId::from_bytes([6; 16]), &key());
    assert_eq!(StateRecord::open(&record.encode(&keys), &keys), Ok(record));
}

/// A list that anybody can have written: as it stands, and with good MACs.
fn times(input: &[u8]) {
    let volume = VolumeId::from_bytes([6; 16]);
    let keys = VolumeKeys::new(volume, &key()).times_key().clone();
    let mac_key = derive(&key(), volume.as_bytes(), Label::VolumeTimes);
    let mut list = input.to_vec();
    for record in list.chunks_exact_mut(ShownTime::LEN) {
        let mac = hmac_sha256(&mac_key, &[&record[..40]]);
        record[40..].copy_from_slice(&mac[..8]);
    }
    let whole = input.len() / ShownTime::LEN;
    let read = |list: &[u8]| {
        within(4096 + 8 * list.len(), || ShownTime::parse_all(list, &keys).collect::<Vec<_>>())
    };
    assert!(read(input).len() <= whole);
    let times = read(&list);
    assert_eq!(times.len(), whole);
    let again: Vec<u8> = times.iter().flat_map(|time| time.encode(&keys)).collect();
    assert_eq!(read(&again), times);
    // Order is kept, so a list that is read and written again says the same.
    let last: HashMap<u64, ShownTime> = times.iter().map(|time| (time.ino, *time)).collect();
    for time in last.values() {
        let found = times.iter().rev().find(|other| other.ino == time.ino);
        assert_eq!(found, Some(time));
    }
    if let Some((first, rest)) = times.split_first() {
        list[input[0] as usize % ShownTime::LEN] ^= 1;
        assert_eq!(read(&list), rest, "a forged record takes no other along");
        assert_eq!(ShownTime::parse_all(&first.encode(&keys), &keys).collect::<Vec<_>>(), [*first]);
    }
}

struct Fields<'a> {
    volume: [u8; 16],
    sequence: u64,
    features: u32,
    created: i64,
    wrapped: Option<&'a [u8]>,
}

impl<'a> Arbitrary<'a> for Fields<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            volume: input.arbitrary()?,
            sequence: input.arbitrary()?,
            features: input.arbitrary()?,
            created: input.arbitrary()?,
            wrapped: input.arbitrary()?,
        })
    }
}

impl Fields<'_> {
    fn descriptor(self) -> Option<VolumeDescriptor> {
        let features = VolumeFeatures::from_bits(self.features);
        let wrapped = match self.wrapped {
            Some(bytes) => Wrapped::Opaque(Opaque::new(bytes.to_vec()).ok()?),
            None => Wrapped::Kms([3; 72]),
        };
        let (key, material) = (KeyId::from_bytes([1; 16]), MaterialId::from_bytes([2; 16]));
        VolumeFeatures::ALL.has(features).then_some(VolumeDescriptor {
            volume: VolumeId::from_bytes(self.volume),
            sequence: self.sequence,
            features,
            created: self.created,
            recipient: Recipient { key, material, wrapped },
        })
    }
}
