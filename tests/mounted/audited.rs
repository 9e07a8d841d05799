//! What a mount writes into the audit log, and what its daemon does by date.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::Vault;

/// The attack: of 400 files that a shell made by redirection, the log had none.
#[test]
fn each_file_that_a_shell_makes_by_redirection_is_in_the_log() {
    for required in [false, true] {
        let vault = Vault::new("redirection");
        let mount = vault.mount_with(&["--create"]);
        if required {
            vault.kmsfs(["audit", "require", "on"]);
        }
        let script = "for i in $(seq 40); do echo contents > $i; done";
        let made = Command::new("sh").args(["-c", script]).current_dir(mount.root()).status();
        assert!(made.unwrap().success());
        // Until the daemon has noticed that the log is required, they are counted in memory.
        mount.unmount();
        let made = events(&vault, "GenerateDataKey");
        let files: BTreeSet<_> =
            made.iter().filter_map(|event| event["file"].as_str()).map(str::to_owned).collect();
        assert_eq!(files.len(), 40, "required: {required}, {made:?}");
    }
}

/// The log was written when the last thread let go of the keystore, which the end of the process may not
/// wait for.
#[test]
fn regression_a_command_that_still_talks_to_the_daemon_loses_no_records() {
    let vault = Vault::new("talking");
    let mount = vault.mount_with(&["--create"]);
    let _talking = UnixStream::connect(control_socket(&vault)).unwrap();
    fs::write(mount.path("file"), "contents").unwrap();
    mount.unmount();
    assert_eq!(events(&vault, "GenerateDataKey").len(), 1);
}

#[test]
fn a_daemon_removes_grants_that_have_ended() {
    let vault = Vault::new("ended");
    vault.mount_with(&["--create"]).unmount();
    let to = "arn:aws:iam::000000000000:user/unix/61001";
    let words = ["--operations", "Decrypt", "--expires", "1s"];
    let [operations, decrypt, expires, second] = words;
    let key = "alias/kmsfs/default";
    vault.kmsfs(["grant", "create", key, "--to", to, operations, decrypt, expires, second]);
    thread::sleep(Duration::from_secs(2));
    let mount = vault.mount();
    let began = Instant::now();
    while events(&vault, "kmsfs:DropExpiredGrants").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "it stays");
        thread::sleep(Duration::from_millis(100));
    }
    mount.unmount();
}

/// Where the daemon of a vault listens.
fn control_socket(vault: &Vault) -> PathBuf {
    let store = fs::metadata(vault.store()).unwrap();
    let name = format!("{:x}-{:x}.sock", store.dev(), store.ino());
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let listening = sockets.lines().find(|line| line.ends_with(&name)).unwrap();
    listening.split(' ').next_back().unwrap().into()
}

/// The events of an operation that are in the log's file by now.
fn events(vault: &Vault, operation: &str) -> Vec<Value> {
    let text = vault.kmsfs(["audit", "export"]);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = lines.map(|mut line| line["record"]["event"].take());
    events.filter(|event| event["operation"] == operation).collect()
}
