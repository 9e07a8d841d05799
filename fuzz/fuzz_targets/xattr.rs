//! Encrypted extended attributes: names and values.

#![no_main]

use base64ct::{Base64UrlUnpadded, Encoding};
use kmsfs::crypto::hash::{Label, derive};
use kmsfs::crypto::siv::SivKey;
use kmsfs::crypto::xaes::XaesKey;
use kmsfs::envelope::{DirKeys, FileKeys, XATTR_PREFIX, XattrKeys};
use kmsfs::id::{DirId, FileId};
use kmsfs_fuzz::{key, one_byte_off, other_key, within};
use libfuzzer_sys::fuzz_target;

const OWNER: [u8; 16] = [7; 16];

fuzz_target!(|input: &[u8]| {
    let keys = FileKeys::new(FileId::from_bytes(OWNER), key()).xattr_keys();
    let (name, value) = split(input);
    as_it_stands(&keys, name, value);
    sealed_by_the_owner(&keys, name, value);
    round_trip(&keys, name, value);
});

/// The first byte says where the input is cut in two.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((at, rest)) = input.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(*at).min(rest.len()))
}

fn memory(input: &[u8]) -> usize {
    4096 + 16 * input.len()
}

fn as_it_stands(keys: &XattrKeys, name: &[u8], value: &[u8]) {
    for prefix in [XATTR_PREFIX, ""] {
        let text = [prefix.as_bytes(), name].concat();
        let Ok(text) = std::str::from_utf8(&text) else { continue };
        if let Ok(plain) = within(memory(name), || keys.decode_name(text)) {
            assert_eq!(keys.encode_name(&plain), text, "only the owner can have made it");
        }
    }
    let opened = within(memory(value), || keys.open_value(name, value));
    assert!(opened.is_err(), "nobody sealed it");
}

/// What the owner's keys made, with a nonce of the fuzzer's.
fn sealed_by_the_owner(keys: &XattrKeys, name: &[u8], value: &[u8]) {
    let names = SivKey::new(&derive(&key(), &OWNER, Label::FileXattrName));
    let text = Base64UrlUnpadded::encode_string(&names.seal(&[&OWNER], name));
    assert_eq!(keys.decode_name(&format!("{XATTR_PREFIX}{text}")).as_deref(), Ok(name));
    let Some((nonce, plain)) = value.split_first_chunk::<24>() else { return };
    let mut body = plain.to_vec();
    let aad = [&b"xattr"[..], &OWNER, name].concat();
    let values = XaesKey::new(&derive(&key(), &OWNER, Label::FileXattrValue));
    let tag = values.seal_in_place(nonce, &aad, &mut body).expect("a value is short");
    let sealed = [&nonce[..], &body, &tag].concat();
    assert_eq!(keys.open_value(name, &sealed).as_deref(), Ok(plain));
    assert!(keys.open_value(&[name, b"x"].concat(), &sealed).is_err());
    let bit = usize::from(nonce[0]) * 37 % (8 * sealed.len());
    let mut changed = sealed.clone();
    changed[bit / 8] ^= 1 << (bit % 8);
    assert!(keys.open_value(name, &changed).is_err());
    let cut = usize::from(nonce[1]) % sealed.len();
    assert!(keys.open_value(name, sealed.get(..cut).unwrap_or_default()).is_err());
}

fn round_trip(keys: &XattrKeys, name: &[u8], value: &[u8]) {
    let encoded = keys.encode_name(name);
    let sealed = keys.seal_value(name, value).expect("a value is short");
    assert_eq!(keys.decode_name(&encoded).as_deref(), Ok(name));
    assert_eq!(keys.open_value(name, &sealed).as_deref(), Ok(value));
    assert_eq!(sealed.len(), value.len() + 40);
    let changed = one_byte_off(encoded.as_bytes(), value).map(String::from_utf8);
    if let Some(Ok(changed)) = changed {
        assert!(keys.decode_name(&changed).is_err(), "one text for one name");
    }
    let dir = DirKeys::new(DirId::from_bytes(OWNER), &key());
    let file = FileKeys::new(FileId::from_bytes([9; 16]), key()).xattr_keys();
    let stranger = FileKeys::new(FileId::from_bytes(OWNER), other_key()).xattr_keys();
    for other in [dir.xattrs(), &file, &stranger] {
        assert!(other.decode_name(&encoded).is_err() && other.open_value(name, &sealed).is_err());
    }
}
