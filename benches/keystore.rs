//! Wrapping and unwrapping a data key, as every create and open of a file does: `cargo bench
//! --bench keystore`.

use std::path::Path;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use kmsfs::keystore::{
    AliasName, Caller, EncryptionContext, KeyRef, Keystore, KeystoreError, Unlock, create_key_file,
};

fn keystore(dir: &Path) -> Result<Keystore, KeystoreError> {
    create_key_file(&dir.join("key"))?;
    let unlock = Unlock::KeyFile(dir.join("key"));
    let keystore = Keystore::create(&dir.join("store.db"), &unlock, SystemTime::now())?;
    keystore.ensure_default_key(SystemTime::now())?;
    Ok(keystore.acting_for(Caller::service()))
}

fn data_keys(criterion: &mut Criterion) {
    let dir = std::env::temp_dir().join(format!("kmsfs-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("the directory for temporary files can be written to");
    let keystore = keystore(&dir).expect("a keystore can be made there");
    let key = KeyRef::Alias(AliasName::default_key());
    let context = EncryptionContext::new()
        .with("kmsfs:volume", "00112233-4455-6677-8899-aabbccddeeff")
        .with("kmsfs:file", "00112233-4455-6677-8899-aabbccddeeff")
        .with("kmsfs:format", "1");
    let made = keystore.generate_data_key(&key, &context).expect("a new keystore makes data keys");
    let blob = made.ciphertext;

    let mut group = criterion.benchmark_group("keystore");
    group.bench_function("generate_data_key", |bencher| {
        bencher.iter(|| keystore.generate_data_key(&key, &context).is_ok());
    });
    group.bench_function("decrypt_data_key", |bencher| {
        bencher.iter(|| keystore.decrypt_data_key(&blob, &context).is_ok());
    });
    group.bench_function("key_state", |bencher| {
        bencher.iter(|| keystore.key_state(blob.key_id()).is_ok());
    });
    group.bench_function("poll_changes", |bencher| {
        bencher.iter(|| keystore.poll_changes().is_ok());
    });
    group.finish();
    drop(keystore);
    let _ = std::fs::remove_dir_all(&dir);
}

criterion_group!(benches, data_keys);
criterion_main!(benches);
