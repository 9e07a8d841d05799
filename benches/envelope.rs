//! The format in memory, without files and without a KMS: pages, headers and names, as every request
//! does them. `cargo bench --bench envelope`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kmsfs::crypto::Secret;
use kmsfs::envelope::layout::{DATA_PAYLOAD, PAGE_LEN, PageNo};
use kmsfs::envelope::{
    DirKeys, EncodedName, FileHeader, FileKeys, HeaderFlags, Nonces, Recipient, Seal, SessionWord,
    UnitPlace, UnverifiedHeader, WRAPPED_LEN, Wrapped,
};
use kmsfs::id::{DirId, FileId, KeyId, MaterialId};

const FILE: FileId = FileId::from_bytes([1; 16]);
const DIR: DirId = DirId::from_bytes([2; 16]);
const PLACE: UnitPlace = UnitPlace { page: PageNo(1), kind: kmsfs::envelope::UnitKind::Data };

fn secret() -> Secret<32> {
    Secret::filled(|bytes| bytes.fill(3))
}

fn pages(criterion: &mut Criterion) {
    let cipher = FileKeys::new(FILE, secret()).unit_cipher();
    let (payload, mut page, mut plain) = ([4; DATA_PAYLOAD], [0; PAGE_LEN], [0; PAGE_LEN]);
    let mut group = criterion.benchmark_group("page");
    group.throughput(Throughput::Bytes(DATA_PAYLOAD as u64));
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            let mut nonces = Nonces::draw(1).expect("the system gives randomness");
            cipher.seal(PLACE, &mut nonces, black_box(&payload), &mut page)
        });
    });
    group.bench_function("open", |bencher| {
        bencher.iter(|| cipher.open(PLACE, black_box(&page), &mut plain));
    });
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let keys = FileKeys::new(FILE, secret());
    let recipient = Recipient {
        key: KeyId::from_bytes([5; 16]),
        material: MaterialId::from_bytes([6; 16]),
        wrapped: Wrapped::Kms([7; WRAPPED_LEN]),
    };
    let header = FileHeader {
        file: FILE,
        sequence: 1,
        flags: HeaderFlags::default(),
        seal: Seal { size: 10, session: SessionWord::new(1, 2), mtime: 3 },
        recipients: recipient.into(),
    };
    let bytes = header.encode(&keys);
    let mut group = criterion.benchmark_group("header");
    group.bench_function("keys of a file", |bencher| {
        bencher.iter(|| FileKeys::new(FILE, secret()).unit_cipher());
    });
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&header).encode(&keys)));
    group.bench_function("parse and verify", |bencher| {
        bencher.iter(|| UnverifiedHeader::parse(black_box(&bytes)).map(|slot| slot.verify(&keys)));
    });
    group.finish();
}

fn names(criterion: &mut Criterion) {
    let keys = DirKeys::new(DIR, &secret());
    let mut group = criterion.benchmark_group("name");
    for length in [12, 200] {
        let name = "n".repeat(length).into_bytes();
        group.bench_function(format!("encode {length} bytes"), |bencher| {
            bencher.iter(|| keys.encode_name(black_box(&name)));
        });
        if let EncodedName::Inline(text) = keys.encode_name(&name) {
            group.bench_function(format!("decode {length} bytes"), |bencher| {
                bencher.iter(|| keys.decode_name(black_box(text.as_bytes())));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pages, headers, names);
criterion_main!(benches);
