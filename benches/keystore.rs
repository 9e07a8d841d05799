//! Wrapping and unwrapping a data key, as every create and open of a file does: `cargo bench
//! --bench keystore`. Prints nanoseconds per call, the median of eleven rounds.

use std::error::Error;
use std::hint::black_box;
use std::time::{Instant, SystemTime};

use kmsfs::keystore::{
    AliasName, Caller, EncryptionContext, KeyRef, Keystore, Unlock, create_key_file,
};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("kmsfs-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let measured = measure(&dir);
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &std::path::Path) -> Result<(), Box<dyn Error>> {
    create_key_file(&dir.join("key"))?;
    let unlock = Unlock::KeyFile(dir.join("key"));
    let keystore = Keystore::create(&dir.join("store.db"), &unlock, SystemTime::now())?;
    keystore.ensure_default_key(SystemTime::now())?;
    let keystore = keystore.acting_for(Caller::service());
    let key = KeyRef::Alias(AliasName::default_key());
    let context = EncryptionContext::new()
        .with("kmsfs:volume", "00112233-4455-6677-8899-aabbccddeeff")
        .with("kmsfs:file", "00112233-4455-6677-8899-aabbccddeeff")
        .with("kmsfs:format", "1");
    let blob = keystore.generate_data_key(&key, &context)?.ciphertext;

    report("generate_data_key", || black_box(keystore.generate_data_key(&key, &context)).is_ok());
    report("decrypt_data_key", || black_box(keystore.decrypt_data_key(&blob, &context)).is_ok());
    report("key_state", || black_box(keystore.key_state(blob.key_id())).is_ok());
    report("poll_changes", || black_box(keystore.poll_changes()).is_ok());
    Ok(())
}

fn report(name: &str, mut call: impl FnMut() -> bool) {
    let mut rounds: Vec<u128> = (0..11)
        .map(|_| {
            let start = Instant::now();
            let done = (0..CALLS).filter(|_| call()).count();
            assert_eq!(done, CALLS, "{name} failed");
            start.elapsed().as_nanos() / CALLS as u128
        })
        .collect();
    rounds.sort_unstable();
    println!("{name:<20} {:>8} ns", rounds[rounds.len() / 2]);
}

const CALLS: usize = 20_000;
