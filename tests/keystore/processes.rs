//! Two processes on one file, and processes that die.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Barrier};

use kmsfs::id::KeyId;
use kmsfs::keystore::{ClockTrust, CreateKey, EncryptionContext, KeyState, Keystore, Unlock};

use crate::fixture::{Fixture, by_id, day};

const DIR: &str = "KMSFS_TEST_KEYSTORE_DIR";

/// Not a test: the other process. It makes keys until it is killed, and tells each one only
/// after the keystore said that it is made.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn child_that_makes_keys() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let keystore =
        Keystore::open(&dir.join("store.db"), &Unlock::KeyFile(dir.join("key"))).unwrap();
    for turn in 0..2000 {
        let key = keystore.create_key(CreateKey::default(), day(turn)).unwrap().key_id;
        keystore.rotate_key_on_demand(&by_id(key), day(turn)).unwrap();
        println!("made {key}");
    }
}

/// Not a test: the other process. It destroys keys until it is killed, and tells each one, with the
/// sealed bytes of its wrapping key, only after the keystore said that it is gone.
#[test]
#[ignore = "started by other tests as a process of its own"]
fn child_that_destroys_keys() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let path = dir.join("store.db");
    let keystore = Keystore::open(&path, &Unlock::KeyFile(dir.join("key"))).unwrap();
    for _ in 0..500 {
        // The day of the round before, or of the process before, was not real.
        keystore.delete_expired(day(0), ClockTrust::Confirmed).unwrap();
        let key = keystore.create_key(CreateKey::default(), day(0)).unwrap().key_id;
        let database = rusqlite::Connection::open(&path).unwrap();
        let query = "SELECT hex(sealed) FROM wrapping_key WHERE id = ?1";
        let sealed: String = database.query_row(query, [key.as_bytes()], |row| row.get(0)).unwrap();
        drop(database);
        keystore.schedule_key_deletion(key, Some(7), day(0)).unwrap();
        let expired = keystore.delete_expired(day(7), ClockTrust::Confirmed).unwrap();
        assert!(expired.deleted.contains(&key));
        println!("gone {sealed}");
    }
}

#[test]
fn what_was_destroyed_before_kill_9_is_in_no_file_afterwards() {
    let f = Fixture::new();
    f.key();
    for run in 0..4 {
        let mut child = start_child(&f, "child_that_destroys_keys");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut next =
            || lines.find_map(|line| Some(line.ok()?.split_once("gone ")?.1.trim().to_owned()));
        let mut gone: Vec<String> = (0..3 + run).filter_map(|_| next()).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        gone.extend(std::iter::from_fn(next));
        let keystore = f.reopen();
        let report = keystore.verify().unwrap();
        assert!(report.is_clean() && report.keys >= 1, "{report:?}");
        let files: Vec<String> = std::fs::read_dir(f.dir.path())
            .unwrap()
            .map(|entry| base16ct::upper::encode_string(&read_elsewhere(&entry.unwrap().path())))
            .collect();
        for sealed in gone {
            assert!(files.iter().all(|file| !file.contains(&sealed)), "{sealed}");
        }
    }
}

/// Reads a file in a process of its own: to close a file of SQLite ends the locks that this process has
/// on it.
fn read_elsewhere(path: &Path) -> Vec<u8> {
    let output = Command::new("cat").arg(path).output().unwrap();
    // The draft of an audit log has gone, or has its name, since the directory was listed.
    assert!(output.status.success() || !path.exists(), "{output:?}");
    output.stdout
}

fn start_child(f: &Fixture, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("processes::{name}"), "--ignored", "--nocapture"])
        .env(DIR, f.dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The next key that the child tells, or `None` when it is dead.
fn next_key(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Option<KeyId> {
    lines.find_map(|line| {
        let line = line.ok()?;
        // The test harness writes its own words in front of the first line.
        line.split_once("made ").and_then(|(_, id)| id.trim().parse().ok())
    })
}

#[test]
fn every_key_that_was_reported_survives_kill_9_and_nothing_is_half_made() {
    let f = Fixture::new();
    for run in 0..3 {
        let mut child = start_child(&f, "child_that_makes_keys");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told: Vec<KeyId> = (0..5 + run).filter_map(|_| next_key(&mut lines)).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        told.extend(std::iter::from_fn(|| next_key(&mut lines)));
        assert!(told.len() >= 5);
        let keystore = f.reopen();
        for key in told {
            assert_eq!(keystore.key_state(key).unwrap(), KeyState::Enabled);
        }
        let report = keystore.verify().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn two_processes_write_at_once_and_neither_fails() {
    let f = Fixture::new();
    let mut child = start_child(&f, "child_that_makes_keys");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = next_key(&mut lines).unwrap();
    for _ in 0..30 {
        f.key();
    }
    let last = (0..20).filter_map(|_| next_key(&mut lines)).last().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    f.keystore.poll_changes().unwrap();
    for key in [first, last] {
        assert_eq!(f.keystore.key_state(key).unwrap(), KeyState::Enabled);
    }
    assert!(f.reopen().verify().unwrap().is_clean());
}

#[test]
fn threads_share_a_handle_and_a_disabled_key_stays_out_of_the_cache() {
    let f = Fixture::new();
    let key = f.key();
    let keystore = Arc::new(f.reopen());
    let barrier = Arc::new(Barrier::new(4));
    let work = |toggles: bool| {
        let (keystore, barrier) = (Arc::clone(&keystore), Arc::clone(&barrier));
        std::thread::spawn(move || {
            barrier.wait();
            for _ in 0..200 {
                if toggles {
                    keystore.disable_key(&by_id(key)).unwrap();
                    // Whatever readers put into the cache meanwhile, this must see its own change.
                    assert_eq!(keystore.key_state(key).unwrap(), KeyState::Disabled);
                    keystore.enable_key(&by_id(key)).unwrap();
                    assert_eq!(keystore.key_state(key).unwrap(), KeyState::Enabled);
                } else {
                    let context = EncryptionContext::new();
                    let made = keystore.generate_data_key(&by_id(key), &context);
                    let verdict = made.map_or_else(|error| error.aws_name(), |_| "ok");
                    assert!(["ok", "DisabledException"].contains(&verdict), "{verdict}");
                }
            }
        })
    };
    let threads: Vec<_> = [true, false, false, false].map(work).into();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(keystore.key_state(key).unwrap(), KeyState::Enabled);
}

#[test]
fn two_creators_of_one_file_leave_one_whole_keystore() {
    let f = Fixture::new();
    let path = f.dir.join("contested.db");
    let created: Vec<bool> = std::thread::scope(|scope| {
        let create = || Keystore::create(&path, &f.unlock(), day(0)).is_ok();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(created.iter().filter(|made| **made).count(), 1);
    assert!(Keystore::open(&path, &f.unlock()).unwrap().verify().unwrap().is_clean());
}
