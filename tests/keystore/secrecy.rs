//! What must not be readable: in the file, in Debug, in errors.

use std::fs;
use std::path::Path;

use kmsfs::id::VolumeId;
use kmsfs::keystore::{AliasName, CreateKey, EncryptionContext, Unlock};
use zeroize::Zeroizing;

use crate::fixture::{Fixture, by_id, day};

#[test]
fn names_texts_paths_and_key_files_do_not_appear_in_any_file() {
    const PLANTED: [&str; 5] =
        ["PLANTEDDESC", "PLANTEDTAGKEY", "PLANTEDTAGVALUE", "PLANTEDALIAS", "PLANTEDPATH"];
    let [description, tag_key, tag_value, alias, path] = PLANTED;
    let f = Fixture::new();
    let request = CreateKey {
        description: description.to_owned(),
        tags: [(tag_key.to_owned(), tag_value.to_owned())].into(),
        ..CreateKey::default()
    };
    let key = f.keystore.create_key(request, day(0)).unwrap().key_id;
    let alias: AliasName = format!("alias/{alias}").parse().unwrap();
    f.keystore.create_alias(&alias, key, day(0)).unwrap();
    let volume = VolumeId::from_bytes([1; 16]);
    f.keystore.register_volume(volume, &Path::new("/srv").join(path)).unwrap();
    f.keystore.disable_key(&by_id(key)).unwrap();
    let secret_line = fs::read(f.dir.join("key")).unwrap();
    for name in ["store.db", "store.db-wal", "store.db-shm"] {
        let raw = fs::read(f.dir.join(name)).unwrap();
        for word in PLANTED {
            assert!(!contains(&raw, word.as_bytes()), "{word} in {name}");
        }
        assert!(!contains(&raw, secret_line.trim_ascii_end()), "key file in {name}");
        for word in ["Disabled", "Enabled"] {
            assert!(!contains(&raw, word.as_bytes()), "state in {name}");
        }
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let made = f.keystore.generate_data_key(&key, &context).unwrap();
    let opened = f.keystore.decrypt(&made.ciphertext, &context, None).unwrap();
    let shown = format!("{made:?} {opened:?} {:?}", f.keystore);
    assert!(shown.contains("Secret<32>") && shown.contains("Plaintext(32 bytes)"), "{shown}");
    let bytes = made.plaintext.expose();
    let (hex, list) = (base16ct::lower::encode_string(bytes), format!("{:?}", &bytes[..4]));
    assert!(!shown.contains(&hex) && !shown.contains(list.trim_matches(['[', ']'])), "{shown}");
}

#[test]
fn errors_repeat_no_passphrase() {
    let f = Fixture::new();
    let unlock = Unlock::Passphrase(Zeroizing::new(b"PLANTEDPHRASE".to_vec()));
    f.keystore.add_slot(&Unlock::Passphrase(Zeroizing::new(b"other".to_vec())), day(0)).unwrap();
    let error = kmsfs::keystore::Keystore::open(&f.path(), &unlock).unwrap_err();
    assert!(!format!("{error} {error:?} {unlock:?}").contains("PLANTED"));
}

fn contains(raw: &[u8], word: &[u8]) -> bool {
    raw.windows(word.len()).any(|window| window == word)
}
