//! Custom key stores on SoftHSM2. Its configuration is named by an environment variable, so the
//! tests run in a child process that has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use kmsfs::id::KeyId;
use kmsfs::keystore::{
    ClockTrust, ConnectionErrorCode, ConnectionState, CreateKey, CreateKeyStore, EncryptionContext,
    KeyMetadata, KeySpec, KeyState, KeyStoreId, KeyUsage, Keystore, KeystoreError, Origin, Pin,
    TokenRef, Unlock, UpdateKeyStore, create_key_file,
};

use super::fixture::{Fixture, TempDir, by_id, day};
use super::softhsm::{MODULE, PIN, SoftHsm};

#[test]
fn keys_of_a_key_store_wrap_on_the_token_only() {
    in_a_child("wrap");
}

#[test]
fn a_token_that_is_pulled_out_makes_its_keys_unavailable_until_it_is_back() {
    in_a_child("gone_and_back");
}

#[test]
fn connections_have_the_states_and_errors_of_aws() {
    in_a_child("states");
}

#[test]
fn regression_a_pin_that_was_refused_is_tried_again_by_no_process() {
    let dir = TempDir::new();
    let hsm = tokens_in(&dir);
    run_child(&hsm, &dir, "pin_is_right");
    change_pin(&hsm, PIN, "2222");
    run_child(&hsm, &dir, "pin_is_refused");
    // It would be right now, and nobody tries it.
    change_pin(&hsm, "2222", PIN);
    run_child(&hsm, &dir, "pin_was_refused");
}

#[test]
fn what_a_token_cannot_do_is_refused_as_by_aws() {
    in_a_child("refusals");
}

#[test]
fn a_key_is_destroyed_on_its_token_when_its_waiting_period_is_over() {
    in_a_child("deletion");
}

/// Another token with the same label stood for the one that has the keys: a key was told as destroyed that
/// was still there.
#[test]
fn regression_a_token_with_the_same_label_is_not_the_token() {
    in_a_child("same_label");
}

#[test]
fn the_pin_is_nowhere_in_the_file() {
    in_a_child("secrecy");
}

#[test]
#[ignore = "the other tests run it in a child with an environment of its own"]
fn scenario() {
    let hsm = SoftHsm::at(Path::new(&std::env::var("KMSFS_TEST_SOFTHSM").unwrap()));
    match std::env::var("KMSFS_TEST_SCENARIO").unwrap().as_str() {
        "wrap" => wrap(),
        "gone_and_back" => gone_and_back(&hsm),
        "states" => states(&hsm),
        "pin_is_right" => pin_is_right(),
        "pin_is_refused" => pin_is_refused(),
        "pin_was_refused" => pin_was_refused(),
        "refusals" => refusals(),
        "deletion" => deletion(&hsm),
        "same_label" => same_label(&hsm),
        "secrecy" => secrecy(),
        other => panic!("no scenario {other}"),
    }
}

fn wrap() {
    let fixture = Fixture::new();
    let (store, key) = with_key(&fixture);
    let metadata = describe(&fixture, key);
    assert_eq!(metadata.origin, Origin::AwsCloudHsm);
    assert_eq!(metadata.custom_key_store_id, Some(store));
    assert_eq!(metadata.cloud_hsm_cluster_id.as_deref(), Some("safe"));

    let context = context("a");
    let made = fixture.keystore.generate_data_key(&by_id(key), &context).unwrap();
    assert_eq!(made.ciphertext.sealed().len(), 72, "it has its room in a header");
    let reopened = fixture.reopen();
    let opened = reopened.decrypt_data_key(&made.ciphertext, &context).unwrap();
    assert_eq!(opened, made.plaintext);
    let wrong = reopened.decrypt_data_key(&made.ciphertext, &self::context("b")).unwrap_err();
    assert_eq!(wrong.aws_name(), "InvalidCiphertextException");

    // Both ways between a key on the token and one in the keystore.
    let other = fixture.key();
    let there = reopened.re_encrypt(&made.ciphertext, &context, &by_id(other), &context).unwrap();
    let back = reopened.re_encrypt(&there, &context, &by_id(key), &context).unwrap();
    assert_eq!(reopened.decrypt_data_key(&back, &context).unwrap(), made.plaintext);
    assert!(reopened.verify().unwrap().is_clean());
}

fn gone_and_back(hsm: &SoftHsm) {
    let fixture = Fixture::new();
    let (_, key) = with_key(&fixture);
    let context = context("a");
    let made = fixture.keystore.generate_data_key(&by_id(key), &context).unwrap();
    for _ in 0..2 {
        hsm.pull_out();
        let gone = fixture.keystore.decrypt_data_key(&made.ciphertext, &context).unwrap_err();
        assert_eq!(gone.aws_name(), "KeyUnavailableException", "{gone}");
        assert_eq!(describe(&fixture, key).key_state, KeyState::Unavailable);
        assert_eq!(fixture.keystore.key_state(key).unwrap(), KeyState::Unavailable);
        hsm.put_in();
        sleep(Duration::from_millis(1100));
        assert_eq!(describe(&fixture, key).key_state, KeyState::Enabled);
        let opened = fixture.keystore.decrypt_data_key(&made.ciphertext, &context).unwrap();
        assert_eq!(opened, made.plaintext);
    }
    // Nobody uses the key: that the token is gone is noticed all the same.
    hsm.pull_out();
    sleep(Duration::from_millis(1100));
    assert_eq!(fixture.keystore.key_state(key).unwrap(), KeyState::Unavailable);
}

fn states(hsm: &SoftHsm) {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let store = create(&fixture.keystore, "0000");
    let entry = || keystore.describe_custom_key_stores(Some(store), None).unwrap().remove(0);
    assert_eq!(entry().connection_state, ConnectionState::Disconnected);
    let (name, token) = (entry().custom_key_store_name, entry().cloud_hsm_cluster_id);
    assert_eq!((name.as_str(), token.as_str()), ("first", "safe"));

    let error = keystore.connect_custom_key_store(store).unwrap_err();
    assert_eq!(error.aws_name(), "CloudHsmClusterInvalidConfigurationException");
    assert!(!error.to_string().contains("0000"));
    assert_eq!(entry().connection_state, ConnectionState::Failed);
    assert_eq!(entry().connection_error_code, Some(ConnectionErrorCode::InvalidCredentials));
    fails(keystore.connect_custom_key_store(store), "CustomKeyStoreInvalidStateException");
    let update = || UpdateKeyStore { pin: Some(pin(PIN)), ..UpdateKeyStore::default() };
    let refused = keystore.update_custom_key_store(store, &update());
    fails(refused, "CustomKeyStoreInvalidStateException");

    keystore.disconnect_custom_key_store(store).unwrap();
    fails(keystore.disconnect_custom_key_store(store), "CustomKeyStoreInvalidStateException");
    keystore.update_custom_key_store(store, &update()).unwrap();
    hsm.pull_out();
    fails(keystore.connect_custom_key_store(store), "CloudHsmClusterNotFoundException");
    assert_eq!(entry().connection_error_code, Some(ConnectionErrorCode::ClusterNotFound));
    hsm.put_in();
    keystore.disconnect_custom_key_store(store).unwrap();
    sleep(Duration::from_millis(1100));
    keystore.connect_custom_key_store(store).unwrap();
    keystore.connect_custom_key_store(store).unwrap();
    assert_eq!(entry().connection_state, ConnectionState::Connected);

    // Another process disconnects: its keys are unavailable here too.
    let key = keystore.create_key(in_store(store), day(0)).unwrap().key_id;
    let made = keystore.generate_data_key(&by_id(key), &context("a")).unwrap();
    fixture.reopen().disconnect_custom_key_store(store).unwrap();
    assert!(keystore.poll_changes().unwrap());
    assert_eq!(describe(&fixture, key).key_state, KeyState::Unavailable);
    let refused = keystore.decrypt_data_key(&made.ciphertext, &context("a"));
    fails(refused, "KMSInvalidStateException");
    fails(keystore.create_key(in_store(store), day(0)), "CustomKeyStoreInvalidStateException");
    fails(keystore.delete_custom_key_store(store), "CustomKeyStoreHasCMKsException");
}

/// Each command of its own tried the PIN once more, also those that only read: three of them locked
/// the token.
fn pin_is_refused() {
    let keystore = left_behind();
    assert_eq!(only_key(&keystore).key_state, KeyState::Unavailable);
    let entry = keystore.describe_custom_key_stores(None, None).unwrap().remove(0);
    assert_eq!(entry.connection_state, ConnectionState::Failed);
    assert_eq!(entry.connection_error_code, Some(ConnectionErrorCode::InvalidCredentials));
}

fn pin_was_refused() {
    let keystore = left_behind();
    assert_eq!(only_key(&keystore).key_state, KeyState::Unavailable);
    let store = only_key(&keystore).custom_key_store_id.unwrap();
    keystore.disconnect_custom_key_store(store).unwrap();
    keystore.connect_custom_key_store(store).unwrap();
    assert_eq!(only_key(&keystore).key_state, KeyState::Enabled);
}

fn pin_is_right() {
    let dir = keystore_dir();
    create_key_file(&dir.join("key")).unwrap();
    let unlock = Unlock::KeyFile(dir.join("key"));
    let keystore = Keystore::create(&dir.join("store.db"), &unlock, day(0)).unwrap();
    let store = create(&keystore, PIN);
    keystore.connect_custom_key_store(store).unwrap();
    keystore.create_key(in_store(store), day(0)).unwrap();
    assert_eq!(only_key(&keystore).key_state, KeyState::Enabled);
}

fn only_key(keystore: &Keystore) -> KeyMetadata {
    keystore.list_keys().unwrap().remove(0)
}

/// The keystore that another child made.
fn left_behind() -> Keystore {
    let dir = keystore_dir();
    Keystore::open(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key"))).unwrap()
}

/// Beside the tokens.
fn keystore_dir() -> PathBuf {
    Path::new(&std::env::var("KMSFS_TEST_SOFTHSM").unwrap()).parent().unwrap().to_owned()
}

fn change_pin(hsm: &SoftHsm, from: &str, to: &str) {
    let words = ["--module", MODULE, "--token-label", "safe", "--login", "--pin", from];
    let mut tool = Command::new("pkcs11-tool");
    tool.args(words).args(["--change-pin", "--new-pin", to]).env("SOFTHSM2_CONF", hsm.conf());
    let changed = tool.output().unwrap();
    assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
}

fn refusals() {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let (store, key) = with_key(&fixture);
    for request in [
        CreateKey {
            spec: Some(KeySpec::Hmac256),
            usage: Some(KeyUsage::GenerateVerifyMac),
            ..in_store(store)
        },
        CreateKey { multi_region: true, ..in_store(store) },
    ] {
        fails(keystore.create_key(request, day(0)), "UnsupportedOperationException");
    }
    for request in [
        CreateKey { origin: Some(Origin::AwsKms), ..in_store(store) },
        CreateKey { origin: Some(Origin::AwsCloudHsm), ..CreateKey::default() },
    ] {
        fails(keystore.create_key(request, day(0)), "ValidationException");
    }
    let unsupported = "UnsupportedOperationException";
    fails(keystore.enable_key_rotation(&by_id(key), None, day(0)), unsupported);
    fails(keystore.rotate_key_on_demand(&by_id(key), day(0)), unsupported);
    fails(keystore.get_key_rotation_status(&by_id(key)), unsupported);

    let request = |name: &str, module: &str, token: &str| CreateKeyStore {
        name: name.to_owned(),
        token_ref: TokenRef::new(Path::new(module), token),
        pin: pin(PIN),
    };
    for (name, module, token, expected) in [
        ("first", MODULE, "another", "CustomKeyStoreNameInUseException"),
        ("second", MODULE, "safe", "CloudHsmClusterInUseException"),
        ("second", MODULE, "no such token", "CloudHsmClusterNotFoundException"),
        ("second", "/no/such/module.so", "safe", "IncorrectTrustAnchorException"),
        ("", MODULE, "another", "ValidationException"),
    ] {
        fails(keystore.create_custom_key_store(&request(name, module, token), day(0)), expected);
    }
    let unknown: KeyStoreId = "cks-0123456789abcdef0".parse().unwrap();
    fails(keystore.connect_custom_key_store(unknown), "CustomKeyStoreNotFoundException");
    let described = keystore.describe_custom_key_stores(None, Some("nobody"));
    fails(described, "CustomKeyStoreNotFoundException");
    keystore.create_custom_key_store(&request("second", MODULE, "another"), day(1)).unwrap();
    let all = keystore.describe_custom_key_stores(None, None).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].custom_key_store_id, store);
}

fn deletion(hsm: &SoftHsm) {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let (store, key) = with_key(&fixture);
    let id = describe(&fixture, key).current_key_material_id.unwrap().to_string().replace('-', "");
    assert!(objects().contains(&id));
    keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    for today in 1..7 {
        assert!(keystore.delete_expired(day(today), ClockTrust::Steps).unwrap().deleted.is_empty());
    }
    // While the token is away the row stays: it is what remembers the key.
    hsm.pull_out();
    assert!(keystore.delete_expired(day(7), ClockTrust::Steps).unwrap().deleted.is_empty());
    hsm.put_in();
    sleep(Duration::from_millis(1100));
    assert!(objects().contains(&id));
    assert_eq!(keystore.delete_expired(day(7), ClockTrust::Steps).unwrap().deleted, [key]);
    assert!(!objects().contains(&id));
    keystore.disconnect_custom_key_store(store).unwrap();
    keystore.delete_custom_key_store(store).unwrap();
    assert!(keystore.describe_custom_key_stores(None, None).unwrap().is_empty());
    assert!(keystore.verify().unwrap().is_clean());
}

fn same_label(hsm: &SoftHsm) {
    let fixture = Fixture::new();
    let keystore = &fixture.keystore;
    let (store, key) = with_key(&fixture);
    let id = describe(&fixture, key).current_key_material_id.unwrap().to_string().replace('-', "");
    keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    let destroyed = || keystore.delete_expired(day(8), ClockTrust::Confirmed).unwrap().deleted;
    hsm.pull_out();
    hsm.init("safe");
    sleep(Duration::from_millis(1100));
    fails(keystore.create_key(in_store(store), day(0)), "CloudHsmClusterNotFoundException");
    assert!(destroyed().is_empty());
    assert!(
        fixture.reopen().delete_expired(day(8), ClockTrust::Confirmed).unwrap().deleted.is_empty()
    );
    keystore.disconnect_custom_key_store(store).unwrap();
    let error = keystore.connect_custom_key_store(store).unwrap_err();
    assert_eq!(error.aws_name(), "CloudHsmClusterNotFoundException");
    assert!(error.to_string().contains("serial number"), "{error}");
    // Somebody says that it is the one: so it is for what is made from now on.
    let take_over = || {
        keystore.disconnect_custom_key_store(store).unwrap();
        let token = Some("safe".to_owned());
        let update = UpdateKeyStore { token, ..UpdateKeyStore::default() };
        keystore.update_custom_key_store(store, &update).unwrap();
        keystore.connect_custom_key_store(store).unwrap();
    };
    take_over();
    keystore.create_key(in_store(store), day(0)).unwrap();
    assert!(destroyed().is_empty(), "it was made on the other one");
    hsm.put_in();
    sleep(Duration::from_millis(1100));
    assert!(objects().contains(&id));
    assert!(destroyed().is_empty(), "it is not the one that was connected");
    take_over();
    assert_eq!(destroyed(), [key]);
    assert!(!objects().contains(&id));
}

fn secrecy() {
    const TELLING: &str = "8462910375";
    let fixture = Fixture::new();
    create(&fixture.keystore, TELLING);
    let bytes = fs::read(fixture.checkpointed()).unwrap();
    assert!(!bytes.windows(TELLING.len()).any(|window| window == TELLING.as_bytes()));
    assert_eq!(format!("{:?}", pin(TELLING)), "Pin");
}

fn with_key(fixture: &Fixture) -> (KeyStoreId, KeyId) {
    let store = create(&fixture.keystore, PIN);
    fixture.keystore.connect_custom_key_store(store).unwrap();
    let made = fixture.keystore.create_key(in_store(store), day(0)).unwrap();
    (store, made.key_id)
}

fn create(keystore: &Keystore, with_pin: &str) -> KeyStoreId {
    let request = CreateKeyStore {
        name: "first".to_owned(),
        token_ref: TokenRef::new(Path::new(MODULE), "safe"),
        pin: pin(with_pin),
    };
    keystore.create_custom_key_store(&request, day(0)).unwrap()
}

fn in_store(store: KeyStoreId) -> CreateKey {
    CreateKey { key_store: Some(store), ..CreateKey::default() }
}

fn describe(fixture: &Fixture, key: KeyId) -> KeyMetadata {
    fixture.keystore.describe_key(&by_id(key)).unwrap()
}

fn context(value: &str) -> EncryptionContext {
    EncryptionContext::new().with("purpose", value)
}

fn pin(text: &str) -> Pin {
    Pin::new(zeroize::Zeroizing::new(text.as_bytes().to_vec()))
}

#[track_caller]
fn fails<T>(result: Result<T, KeystoreError>, name: &str) {
    let error = result.map(drop).unwrap_err();
    assert_eq!(error.aws_name(), name, "{error}");
}

/// What the token holds, as OpenSC sees it.
fn objects() -> String {
    let listed = Command::new("pkcs11-tool")
        .args(["--module", MODULE, "--token-label", "safe", "--login", "--pin", PIN, "-O"])
        .output()
        .expect("pkcs11-tool is there: tests/install-tools.sh installs it");
    String::from_utf8_lossy(&listed.stdout).into_owned()
}

fn in_a_child(scenario: &str) {
    let dir = TempDir::new();
    run_child(&tokens_in(&dir), &dir, scenario);
}

fn tokens_in(dir: &TempDir) -> SoftHsm {
    let hsm = SoftHsm::new(&dir.join("hsm"), "safe");
    hsm.init("another");
    hsm
}

fn run_child(hsm: &SoftHsm, dir: &TempDir, scenario: &str) {
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "key_stores::scenario"])
        .env("SOFTHSM2_CONF", hsm.conf())
        .env("KMSFS_TEST_SOFTHSM", dir.join("hsm"))
        .env("KMSFS_TEST_SCENARIO", scenario)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stdout).into_owned();
    let error = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && told.contains("1 passed"), "{told}{error}");
}
