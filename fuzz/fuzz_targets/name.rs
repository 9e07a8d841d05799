//! Names: encrypted ones with their sidecars, foreign ones, and the targets of symbolic links.

#![no_main]

use base64ct::{Base64UrlUnpadded, Encoding};
use kmsfs::crypto::hash::{Label, derive};
use kmsfs::crypto::siv::SivKey;
use kmsfs::envelope::{
    DirKeys, EncodedName, ForeignName, LINK_TEXT_MAX, LongLink, NAME_MAX, TARGET_MAX, foreign_name,
    is_hidden, is_name, is_sidecar, link_target_len, may_be_encoded,
};
use kmsfs::id::DirId;
use kmsfs_fuzz::{key, one_byte_off, other_key, within};
use libfuzzer_sys::fuzz_target;

const DIR: DirId = DirId::from_bytes([8; 16]);

fuzz_target!(|input: &[u8]| {
    let keys = DirKeys::new(DIR, &key());
    let (entry, rest) = split(input);
    as_it_stands(&keys, entry, rest);
    sealed_text(&keys, entry);
    name_round_trip(&keys, entry, rest);
    foreign(entry, rest);
    links(&keys, input);
});

/// The first byte says where the input is cut in two.
fn split(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((at, rest)) = input.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(*at).min(rest.len()))
}

fn memory(input: &[u8]) -> usize {
    4096 + 16 * input.len()
}

/// An entry and a sidecar as somebody put them there.
fn as_it_stands(keys: &DirKeys, entry: &[u8], sidecar: &[u8]) {
    let read =
        within(memory(entry) + memory(sidecar), || keys.name_of(entry, || Some(sidecar.to_vec())));
    if let Some(name) = read {
        assert!(is_name(&name) && may_be_encoded(entry) && !is_hidden(entry));
        assert_eq!(keys.encode_name(&name).entry().as_bytes(), entry, "one entry for one name");
    }
    if let Ok(name) = keys.decode_name(entry) {
        assert_eq!(text(&keys.encode_name(&name)), entry, "only the owner can have made it");
    }
}

fn text(name: &EncodedName) -> &[u8] {
    match name {
        EncodedName::Inline(text) | EncodedName::Long { contents: text, .. } => text.as_bytes(),
    }
}

/// Text that is authentic, whatever it stands for: past the end of a path, say.
fn sealed_text(keys: &DirKeys, name: &[u8]) {
    let siv = SivKey::new(&derive(&key(), DIR.as_bytes(), Label::DirName));
    let text = Base64UrlUnpadded::encode_string(&siv.seal(&[DIR.as_bytes(), b"name"], name));
    assert_eq!(keys.decode_name(text.as_bytes()).as_deref(), Ok(name));
    if let Some(read) = keys.name_of(text.as_bytes(), || None) {
        assert!(read == name && is_name(name) && text.len() <= NAME_MAX);
    }
}

fn name_round_trip(keys: &DirKeys, name: &[u8], other: &[u8]) {
    let encoded = keys.encode_name(name);
    let entry = encoded.entry().as_bytes();
    assert!(is_name(entry) && !is_hidden(entry) && (name.is_empty() || may_be_encoded(entry)));
    assert_eq!(keys.decode_name(text(&encoded)).as_deref(), Ok(name));
    if let Some(changed) = one_byte_off(text(&encoded), other) {
        assert!(keys.decode_name(&changed).is_err(), "one text for one name");
    }
    let read = keys.name_of(entry, || Some(text(&encoded).to_vec()));
    assert_eq!(read.as_deref(), is_name(name).then_some(name));
    if let EncodedName::Long { sidecar, .. } = &encoded {
        assert!(is_name(sidecar.as_bytes()) && is_hidden(sidecar.as_bytes()));
        assert!(is_sidecar(sidecar.as_bytes()));
        // Another name's sidecar does not rename the entry.
        let swapped = text(&keys.encode_name(other)).to_vec();
        assert!(name == other || keys.name_of(entry, || Some(swapped)).is_none());
    }
    for stranger in
        [DirKeys::new(DIR, &other_key()), DirKeys::new(DirId::from_bytes([9; 16]), &key())]
    {
        assert!(stranger.name_of(entry, || Some(text(&encoded).to_vec())).is_none());
    }
}

/// Two foreign entries are shown under two names, and each name leads back to its entry.
fn foreign(one: &[u8], other: &[u8]) {
    if !is_name(one) || !is_name(other) {
        return;
    }
    let (shown, second) = (foreign_name(one), foreign_name(other));
    assert_eq!(shown == second, one == other);
    assert!(is_name(&shown), "it can be looked up");
    match ForeignName::parse(&shown) {
        Some(ForeignName::Entry(raw)) => assert_eq!(raw, one),
        Some(ForeignName::Hashed) => assert_ne!(foreign_name(one), one),
        None => panic!("a foreign name is shown as one"),
    }
}

fn links(keys: &DirKeys, text: &[u8]) {
    if let Some(link) = within(memory(text), || LongLink::parse(text)) {
        assert_eq!(link.text().as_bytes(), text);
        assert!(link.length() <= TARGET_MAX && is_name(link.id().as_bytes()));
        assert!(text.len() <= LINK_TEXT_MAX && link_target_len(text.len() as u64).is_none());
        assert!(keys.decode_link(text).is_err(), "one form or the other");
    }
    if let Ok(target) = within(memory(text), || keys.decode_link(text)) {
        assert_eq!(keys.encode_link(&target).as_bytes(), text);
    }
    let encoded = keys.encode_link(text);
    assert_eq!(keys.decode_link(encoded.as_bytes()).as_deref(), Ok(text));
    if let Some(changed) = one_byte_off(encoded.as_bytes(), text) {
        assert!(keys.decode_link(&changed).is_err(), "one text for one target");
    }
    assert_eq!(link_target_len(encoded.len() as u64), Some(text.len() as u64));
    assert!(keys.decode_name(encoded.as_bytes()).is_err(), "a link is no name");
    let stranger = DirKeys::new(DIR, &other_key());
    assert!(stranger.decode_link(encoded.as_bytes()).is_err());
    let number = text.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    assert!(link_target_len(number).is_none_or(|length| length <= number));
}
