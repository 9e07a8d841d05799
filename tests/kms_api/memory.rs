//! What can be found in the memory of a server, by root, when it has answered.

use std::fs;
use std::thread;
use std::time::Duration;

use base64ct::{Base64, Encoding};

use crate::fixture::{KEY, Kms, exchange, request};
use crate::process_memory::Memory;

const MARK: &[u8] = b"Plaintext0Marker of a request";

#[test]
fn requests_answers_and_the_secret_of_the_keystore_are_gone_after_use() {
    let kms = Kms::start(&["--allow-unsigned"]);
    let marked = Base64::encode_string(MARK);
    let mut secrets = vec![MARK.to_vec(), marked.clone().into_bytes()];
    for _ in 0..20 {
        let mut connection = kms.connect();
        let body = format!(r#"{{"KeyId":"alias/kmsfs/default","Plaintext":"{marked}"}}"#);
        let encrypted = exchange(&mut connection, &request("Encrypt", &[], &body));
        let blob = encrypted.json()["CiphertextBlob"].as_str().unwrap().to_owned();
        let body = format!(r#"{{"CiphertextBlob":"{blob}"}}"#);
        let opened = exchange(&mut connection, &request("Decrypt", &[], &body));
        assert_eq!(opened.json()["Plaintext"].as_str(), Some(&*marked));
        let body = KEY.replace('}', r#","KeySpec":"AES_256"}"#);
        let made = exchange(&mut connection, &request("GenerateDataKey", &[], &body));
        let key = made.json()["Plaintext"].as_str().unwrap().to_owned();
        secrets.extend([Base64::decode_vec(&key).unwrap(), key.into_bytes()]);
    }
    secrets.push(fs::read(kms.home.path("key")).unwrap().trim_ascii().to_vec());
    // The server notices a little later that the connections are closed.
    thread::sleep(Duration::from_millis(500));
    let memory = Memory::of(kms.pid().as_raw_nonzero().get());
    assert!(memory.count(b"alias/kmsfs/") + memory.count(b"kms-watch") > 0, "nothing is found");
    for secret in &secrets {
        let shown = String::from_utf8_lossy(secret);
        assert_eq!(memory.count(secret), 0, "{shown}: {:?}", memory.places(secret));
    }
}
