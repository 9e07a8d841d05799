//! Death at each step: an operation is run again and again under strace, which kills it with
//! SIGKILL at its first, second, third ... call that changes a file, until it gets through.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kmsfs::keystore::{
    CiphertextBlob, ClockTrust, CreateKey, EncryptionContext, KeyRef, KeyState, Keystore,
    ReplicaProperties, Trust, Unlock,
};

use crate::fixture::{Fixture, TempDir, by_id, day};
use crate::import;

const DIR: &str = "KMSFS_TEST_STEPS_DIR";

/// The calls by which SQLite changes files; strace counts each by itself.
const CHANGES: [&str; 5] = ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink"];

/// Far more than any operation makes.
const MOST: usize = 2000;

fn opened(dir: &Path) -> Keystore {
    Keystore::open(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key"))).unwrap()
}

/// The one key that is in the keystore.
fn the_key(keystore: &Keystore) -> KeyRef {
    by_id(keystore.list_keys().unwrap()[0].key_id)
}

/// Not a test: the operation that is killed.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let keystore = opened(&dir);
    fs::write(dir.join("ready"), "").unwrap();
    let operation = fs::read_to_string(dir.join("operation")).unwrap();
    match operation.as_str() {
        "rotate" => drop(keystore.rotate_key_on_demand(&the_key(&keystore), day(1)).unwrap()),
        "receive" => {
            let transfer = fs::read_to_string(dir.join("transfer")).unwrap();
            let transfer = transfer.parse().unwrap();
            drop(keystore.receive_key(&transfer, &Trust::Compared, day(1)).unwrap());
        }
        "delete" => drop(keystore.delete_expired(day(7), ClockTrust::Confirmed).unwrap()),
        "import" => {
            let (token, encrypted) = (fs::read(dir.join("token")), fs::read(dir.join("encrypted")));
            let (token, encrypted) = (token.unwrap(), encrypted.unwrap());
            let request = import::request(&token, &encrypted);
            keystore.import_key_material(&the_key(&keystore), &request, day(0)).unwrap();
        }
        "delete import" => {
            keystore.delete_imported_key_material(&the_key(&keystore), None).unwrap();
        }
        other => panic!("{other} is no operation"),
    }
}

/// Runs `operation` on copies of a keystore, killed a step later each time, and lets `check` see
/// what each death left behind. `check` is told whether the operation got through.
fn killed_at_each_step(f: &Fixture, operation: &str, check: impl Fn(&Path, bool)) {
    fs::write(f.dir.join("operation"), operation).unwrap();
    // The log is made by a thread, under a name that goes away: not while it is copied.
    f.keystore.flush_audit().unwrap();
    let mut deaths = 0;
    for call in CHANGES {
        let ended = (1..MOST).find(|step| {
            let copy = TempDir::new();
            for entry in fs::read_dir(f.dir.path()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
            }
            let finished = run(copy.path(), call, *step);
            // Deaths before the operation began show nothing that others do not.
            if copy.path().join("ready").exists() {
                deaths += usize::from(!finished);
                check(copy.path(), finished);
            }
            finished
        });
        assert!(ended.is_some(), "{operation} does not end");
    }
    assert!(deaths >= 5, "only {deaths} steps were seen");
}

fn run(dir: &Path, call: &str, step: usize) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"])
        .arg(format!("inject={call}:signal=KILL:when={step}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "steps::child", "--ignored", "--test-threads=1"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.expect("strace is installed by tests/install-tools.sh").success()
}

#[test]
fn a_rotation_killed_at_any_step_has_happened_or_not() {
    let f = Fixture::new();
    let key = by_id(f.key());
    let context = EncryptionContext::new();
    let old = f.keystore.encrypt(&key, b"old", &context).unwrap();
    killed_at_each_step(&f, "rotate", |dir, finished| {
        let keystore = opened(dir);
        assert!(keystore.verify().unwrap().is_clean());
        let materials = keystore.list_key_rotations(&key).unwrap().len();
        assert!(materials == 2 || materials == 1 && !finished);
        let counted = keystore.get_key_rotation_status(&key).unwrap().on_demand_rotations;
        assert_eq!(counted + 1, materials);
        assert_eq!(keystore.decrypt(&old, &context, None).unwrap().plaintext.expose(), b"old");
        let new = keystore.encrypt(&key, b"new", &context).unwrap();
        let again = CiphertextBlob::parse(new.as_bytes()).unwrap();
        keystore.decrypt(&again, &context, None).unwrap();
    });
}

#[test]
fn a_deletion_killed_at_any_step_keeps_the_key_or_erases_all_of_it() {
    let f = Fixture::new();
    let key = f.key();
    f.keystore.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
    let sealed = sealed_material(&f);
    f.keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
    killed_at_each_step(&f, "delete", |dir, finished| {
        // Opening finishes an erasure that was begun.
        let keystore = opened(dir);
        assert!(keystore.verify().unwrap().is_clean());
        match keystore.key_state(key) {
            Ok(state) => assert!(state == KeyState::PendingDeletion && !finished),
            Err(error) => {
                assert_eq!(error.aws_name(), "NotFoundException");
                drop(keystore);
                for name in ["store.db", "store.db-wal"] {
                    let raw = fs::read(dir.join(name)).unwrap_or_default();
                    for bytes in &sealed {
                        assert!(!raw.windows(bytes.len()).any(|window| window == bytes));
                    }
                }
            }
        }
    });
}

#[test]
fn an_import_killed_at_any_step_has_happened_or_can_be_done_again() {
    let f = Fixture::new();
    let key = import::symmetric(&f.keystore);
    let parameters = import::parameters(&f.keystore, &key, day(0));
    let encrypted = import::wrap(&parameters, &[1; 32]);
    fs::write(f.dir.join("token"), &parameters.token).unwrap();
    fs::write(f.dir.join("encrypted"), &encrypted).unwrap();
    killed_at_each_step(&f, "import", |dir, finished| {
        let keystore = opened(dir);
        assert!(keystore.verify().unwrap().is_clean());
        let there = keystore.describe_key(&key).unwrap().key_state == KeyState::Enabled;
        assert!(there || !finished);
        assert_eq!(keystore.list_key_rotations(&key).unwrap().len(), usize::from(there));
        let request = import::request(&parameters.token, &encrypted);
        keystore.import_key_material(&key, &request, day(0)).unwrap();
        keystore.encrypt(&key, b"x", &EncryptionContext::new()).unwrap();
    });
}

#[test]
fn imported_material_whose_deletion_was_killed_is_there_or_in_no_file() {
    let f = Fixture::new();
    let key = import::symmetric(&f.keystore);
    let parameters = import::parameters(&f.keystore, &key, day(0));
    let encrypted = import::wrap(&parameters, &[1; 32]);
    let request = import::request(&parameters.token, &encrypted);
    f.keystore.import_key_material(&key, &request, day(0)).unwrap();
    let context = EncryptionContext::new();
    let blob = f.keystore.encrypt(&key, b"x", &context).unwrap();
    let sealed = sealed_material(&f);
    killed_at_each_step(&f, "delete import", |dir, finished| {
        let keystore = opened(dir);
        assert!(keystore.verify().unwrap().is_clean());
        if keystore.describe_key(&key).unwrap().key_state == KeyState::Enabled {
            assert!(!finished);
            keystore.decrypt(&blob, &context, None).unwrap();
            return;
        }
        drop(keystore);
        for name in ["store.db", "store.db-wal"] {
            let raw = fs::read(dir.join(name)).unwrap_or_default();
            let material = sealed.last().unwrap();
            assert!(!raw.windows(material.len()).any(|window| window == material));
        }
        let keystore = opened(dir);
        keystore.import_key_material(&key, &request, day(0)).unwrap();
        keystore.decrypt(&blob, &context, None).unwrap();
    });
}

#[test]
fn a_key_whose_arrival_is_killed_at_any_step_is_there_or_can_still_arrive() {
    let (source, f) = (Fixture::new(), Fixture::new());
    f.keystore.adopt_region("there").unwrap();
    let request = CreateKey { multi_region: true, ..CreateKey::default() };
    let key = source.keystore.create_key(request, day(0)).unwrap().key_id;
    source.keystore.rotate_key_on_demand(&by_id(key), day(0)).unwrap();
    let context = EncryptionContext::new();
    let made = source.keystore.encrypt(&by_id(key), b"sent", &context).unwrap();
    let to = f.keystore.create_transfer_key(day(0)).unwrap();
    let sent = source.keystore.replicate_key(key, &to, ReplicaProperties::default()).unwrap();
    fs::write(f.dir.join("transfer"), sent.to_string()).unwrap();
    killed_at_each_step(&f, "receive", |dir, finished| {
        let keystore = opened(dir);
        assert!(keystore.verify().unwrap().is_clean());
        if keystore.list_keys().unwrap().is_empty() {
            assert!(!finished);
            keystore.receive_key(&sent, &Trust::Compared, day(1)).unwrap();
        }
        assert!(keystore.receive_key(&sent, &Trust::Compared, day(1)).is_err());
        assert_eq!(keystore.decrypt(&made, &context, None).unwrap().plaintext.expose(), b"sent");
    });
}

fn sealed_material(f: &Fixture) -> Vec<Vec<u8>> {
    let database = rusqlite::Connection::open(f.path()).unwrap();
    let query = "SELECT sealed FROM wrapping_key UNION ALL SELECT sealed FROM key_material";
    let mut rows = database.prepare(query).unwrap();
    rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}
