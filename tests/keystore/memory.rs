//! What stays in the memory of the process after its owner is gone.

use std::fs;
use std::os::unix::fs::FileExt;

use kmsfs::keystore::EncryptionContext;

use crate::fixture::{Fixture, by_id};

#[test]
fn data_keys_are_gone_from_memory_when_their_owners_are() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let made = f.keystore.generate_data_key(&key, &context).unwrap();
    // The pattern is kept inverted, so that it does not find itself.
    let mut inverted = [0; 32];
    inverted.iter_mut().zip(made.plaintext.expose()).for_each(|(out, byte)| *out = !byte);
    let blob = made.ciphertext;
    assert!(occurrences(&inverted) > 0, "the search finds what is there");
    drop(made.plaintext);
    assert_eq!(occurrences(&inverted), 0, "after GenerateDataKey");
    let opened = f.keystore.decrypt_data_key(&blob, &context).unwrap();
    drop(opened);
    assert_eq!(occurrences(&inverted), 0, "after Decrypt");
    drop(f.keystore.decrypt(&blob, &context, None).unwrap());
    drop(f.keystore.re_encrypt(&blob, &context, &key, &context).unwrap());
    assert_eq!(occurrences(&inverted), 0, "after ReEncrypt");
}

/// How often the inverse of `inverted` is in the writable memory of this process.
fn occurrences(inverted: &[u8; 32]) -> usize {
    let memory = fs::File::open("/proc/self/mem").unwrap();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (range, _) = line.split_once(' ').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let number = |text| u64::from_str_radix(text, 16).unwrap();
        let (mut at, end) = (number(start), number(end));
        let mut chunk = vec![0; 1 << 20];
        while at < end {
            let len = usize::try_from(end - at).unwrap().min(chunk.len());
            if memory.read_exact_at(&mut chunk[..len], at).is_ok() {
                found += count(&chunk[..len], inverted);
            }
            at += len as u64;
        }
        chunk.fill(0);
    }
    found
}

fn count(bytes: &[u8], inverted: &[u8; 32]) -> usize {
    let matches = |window: &&[u8]| window.iter().zip(inverted).all(|(a, b)| *a == !b);
    bytes.windows(32).filter(matches).count()
}
