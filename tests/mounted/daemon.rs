//! How a daemon begins, and that it can be ended from then on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::Vault;

/// A script that saw the mount and asked its daemon was told that the vault is in use by another
/// process: the socket came last.
#[test]
fn regression_whoever_sees_a_mount_finds_the_socket_of_its_daemon() {
    let vault = Vault::new("begins");
    vault.mount().unmount();
    let store = fs::metadata(vault.store()).unwrap();
    let socket = format!("{:x}-{:x}.sock", store.dev(), store.ino());
    for _ in 0..5 {
        let (before, given_up) = (device(&vault.mountpoint()), AtomicBool::new(false));
        thread::scope(|scope| {
            let looking = || listens_when_mounted(&vault.mountpoint(), before, &socket, &given_up);
            let seen = scope.spawn(looking);
            let unless_mounted = SetOnDrop(&given_up);
            let mounted = vault.mount_with(&[]);
            std::mem::forget(unless_mounted);
            assert!(seen.join().unwrap(), "nobody listened when the mount was there");
            mounted.unmount();
        });
    }
}

/// Tells a thread to end if this one panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The default of the signal ended the process, and left a dead mount and a session that counted as
/// crashed.
#[test]
fn regression_whoever_sees_a_mount_can_end_it_by_a_signal() {
    let vault = Vault::new("ends");
    vault.mount().unmount();
    for _ in 0..5 {
        let before = device(&vault.mountpoint());
        let mut daemon = in_foreground(&vault);
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        let ended = daemon.wait().unwrap();
        assert!(ended.success(), "{ended}");
        assert_eq!(device(&vault.mountpoint()), before);
    }
}

/// It waited for as long as the daemon was stopped.
#[test]
fn regression_a_daemon_that_is_stopped_does_not_stop_status() {
    let vault = Vault::new("stopped");
    vault.mount().unmount();
    let mut daemon = in_foreground(&vault);
    let pid = Pid::from_child(&daemon);
    kill_process(pid, Signal::STOP).unwrap();
    while !is_stopped(daemon.id()) {
        thread::sleep(Duration::from_millis(10));
    }
    let asked = vault.command().args(["--json", "status"]).stdout(Stdio::piped()).spawn();
    let mut asked = asked.unwrap();
    let begun = Instant::now();
    let mut ended = false;
    while !ended && begun.elapsed() < Duration::from_secs(120) {
        ended = asked.try_wait().unwrap().is_some();
        thread::sleep(Duration::from_millis(50));
    }
    kill_process(pid, Signal::CONT).unwrap();
    let answer = asked.wait_with_output().unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(ended, "it waited for the daemon");
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let own = vault.mountpoint();
    let mounts = answer["mounts"].as_array().unwrap().iter();
    let mut found = mounts.filter(|mount| own.to_str() == mount["mountpoint"].as_str());
    assert!(found.next().unwrap()["alive"].is_null(), "{answer}");
}

/// True once every thread of the process has stopped: a signal does not stop them all at once.
fn is_stopped(process: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut states = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
    // The name of a thread stands in brackets before its state.
    states.all(|stat| stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('T')))
}

/// A daemon of this process, which is mounted.
fn in_foreground(vault: &Vault) -> Child {
    let before = device(&vault.mountpoint());
    let mut command = vault.command();
    command.args(["mount", "--foreground"]).arg(vault.store()).arg(vault.mountpoint());
    let mut daemon = command.spawn().unwrap();
    while device(&vault.mountpoint()) == before {
        assert!(daemon.try_wait().unwrap().is_none(), "it ended by itself");
    }
    daemon
}

fn device(mountpoint: &Path) -> u64 {
    fs::metadata(mountpoint).unwrap().dev()
}

/// Looks all the time, and asks for the socket in the moment in which the mount is there.
fn listens_when_mounted(
    mountpoint: &Path,
    before: u64,
    socket: &str,
    given_up: &AtomicBool,
) -> bool {
    while fs::metadata(mountpoint).map_or(before, |found| found.dev()) == before {
        assert!(!given_up.load(Ordering::Relaxed), "there was no mount");
    }
    fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(socket))
}
