//! How a daemon begins.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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

/// Looks all the time, and asks for the socket in the moment in which the mount is there.
fn listens_when_mounted(mountpoint: &Path, socket: &str, over: &AtomicBool) -> bool {
    let before = fs::metadata(mountpoint).unwrap().dev();
    while fs::metadata(mountpoint).map_or(before, |found| found.dev()) == before {
        assert!(!over.load(Ordering::Relaxed), "the mount came and went unseen");
    }
    fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(socket))
}
