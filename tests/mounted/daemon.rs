//! How a daemon begins, and that it can be ended from then on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

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
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let seen = scope.spawn(|| listens_when_mounted(&vault.mountpoint(), &socket, &over));
            vault.mount_with(&[]).unmount();
            over.store(true, Ordering::Relaxed);
            assert!(seen.join().unwrap(), "nobody listened when the mount was there");
        });
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
        let mut daemon = vault
            .command()
            .args(["mount", "--foreground"])
            .arg(vault.store())
            .arg(vault.mountpoint())
            .spawn()
            .unwrap();
        while device(&vault.mountpoint()) == before {
            assert!(daemon.try_wait().unwrap().is_none(), "it ended by itself");
        }
        kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
        let ended = daemon.wait().unwrap();
        assert!(ended.success(), "{ended}");
        assert_eq!(device(&vault.mountpoint()), before);
    }
}

fn device(mountpoint: &Path) -> u64 {
    fs::metadata(mountpoint).unwrap().dev()
}

/// Looks all the time, and asks for the socket in the moment in which the mount is there.
fn listens_when_mounted(mountpoint: &Path, socket: &str, over: &AtomicBool) -> bool {
    let before = device(mountpoint);
    while fs::metadata(mountpoint).map_or(before, |found| found.dev()) == before {
        assert!(!over.load(Ordering::Relaxed), "the mount came and went unseen");
    }
    fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(socket))
}
