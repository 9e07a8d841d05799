//! Directory descriptors of both formats, and the places that they name.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use kmsfs::crypto::hash::{Label, derive};
use kmsfs::envelope::{
    CrossMode, DirDescriptor, DirKeys, DirPlace, Opaque, Places, RECORD_LEN, Recipient, Wrapped,
};
use kmsfs::id::{DirId, KeyId, MaterialId, VolumeId};
use kmsfs_fuzz::{id, key, one_bit_off, other_key, record, sealed, with_crc, within};
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8; 8] = b"KMSFSd1\0";
const MEMORY: usize = 4 * 1024;

type Bytes = [u8; RECORD_LEN];

fuzz_target!(|input: &[u8]| {
    let bytes = record(input);
    let good = seal(bytes);
    for forged in [bytes, with_crc(bytes), one_bit_off(good, input)] {
        let parsed = within(MEMORY, || DirDescriptor::parse(&forged));
        let verified = DirDescriptor::verify(&forged, &keys(&forged));
        assert_eq!(verified.is_ok(), parsed.is_ok() && forged == seal(forged));
    }
    if let Ok(claims) = within(MEMORY, || DirDescriptor::parse(&good)) {
        let descriptor = DirDescriptor::verify(&good, &keys(&good)).expect("its own keys made it");
        assert_eq!(claims, descriptor);
        assert!(DirDescriptor::verify(&good, &DirKeys::new(claims.dir, &other_key())).is_err());
        let other = DirKeys::new(DirId::from_bytes([0xff; 16]), &key());
        assert!(
            claims.dir == DirId::from_bytes([0xff; 16])
                || DirDescriptor::verify(&good, &other).is_err()
        );
        round_trip(&descriptor, input);
    }
    let mut fields = Unstructured::new(input);
    if let Ok(Some(descriptor)) = Fields::arbitrary(&mut fields).map(Fields::descriptor) {
        round_trip(&descriptor, input);
    }
});

fn keys(bytes: &Bytes) -> DirKeys {
    DirKeys::new(DirId::from_bytes(id(bytes)), &key())
}

fn seal(bytes: Bytes) -> Bytes {
    let dir = id(&bytes);
    let commitment = derive::<32>(&key(), &dir, Label::DirCommit);
    let mac_key = derive(&key(), &dir, Label::DirDescriptor);
    sealed(bytes, MAGIC, commitment.expose(), &mac_key)
}

fn round_trip(descriptor: &DirDescriptor, input: &[u8]) {
    assert!(descriptor.fits() || descriptor.places.is_none());
    let keys = DirKeys::new(descriptor.dir, &key());
    let bytes = descriptor.encode(&keys);
    let again = DirDescriptor::verify(&bytes, &keys).expect("an encoded descriptor parses");
    assert_eq!(&again, descriptor);
    let elsewhere =
        [DirPlace::root(VolumeId::from_bytes([1; 16])), DirPlace::below(descriptor.dir, input)];
    for place in elsewhere {
        let named = descriptor.places.is_none_or(|places| places.include(place));
        assert_eq!(descriptor.belongs_at(place), named);
        let moved = DirDescriptor { places: Some(Places::at(place)), ..descriptor.clone() };
        assert!(moved.belongs_at(place) && elsewhere.map(|at| moved.belongs_at(at)) != [true; 2]);
    }
    assert!(descriptor.accepts(descriptor.policy));
    assert!(descriptor.previous.iter().all(|key| descriptor.accepts(*key)));
}

struct Fields<'a> {
    dir: [u8; 16],
    sequence: u64,
    policy: [u8; 16],
    inherited: bool,
    cross: u8,
    previous: Vec<[u8; 16]>,
    wrapped: Option<&'a [u8]>,
    places: Option<(&'a [u8], &'a [u8])>,
    policy_sequence: u32,
}

impl<'a> Arbitrary<'a> for Fields<'a> {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            dir: input.arbitrary()?,
            sequence: input.arbitrary()?,
            policy: input.arbitrary()?,
            inherited: input.arbitrary()?,
            cross: input.arbitrary()?,
            previous: input.arbitrary()?,
            wrapped: input.arbitrary()?,
            places: input.arbitrary()?,
            policy_sequence: input.arbitrary()?,
        })
    }
}

impl Fields<'_> {
    fn descriptor(self) -> Option<DirDescriptor> {
        let dir = DirId::from_bytes(self.dir);
        let place = |name| DirPlace::below(DirId::from_bytes([3; 16]), name);
        let places = self.places.map(|(from, to)| Places { from: place(from), to: place(to) });
        let descriptor = DirDescriptor {
            dir,
            sequence: self.sequence,
            policy: KeyId::from_bytes(self.policy),
            inherited: self.inherited,
            cross: match self.cross % 3 {
                0 => CrossMode::Rewrap,
                1 => CrossMode::Exdev,
                _ => CrossMode::Keep,
            },
            previous: self.previous.into_iter().map(KeyId::from_bytes).collect(),
            recipient: Recipient {
                key: KeyId::from_bytes([1; 16]),
                material: MaterialId::from_bytes([2; 16]),
                wrapped: match self.wrapped {
                    Some(bytes) => Wrapped::Opaque(Opaque::new(bytes.to_vec()).ok()?),
                    None => Wrapped::Kms([3; 72]),
                },
            },
            places,
            policy_sequence: if places.is_some() { self.policy_sequence } else { 0 },
        };
        (!dir.is_zero() && descriptor.fits()).then_some(descriptor)
    }
}
