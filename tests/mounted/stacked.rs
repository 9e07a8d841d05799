//! Mounts of others on a mount, and a mount that is reached by another path.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::harness::{Vault, is_root};

const KEY: &str = "alias/finance";

/// What a test mounted; gone with it.
struct Stacked(PathBuf);

impl Drop for Stacked {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
    }
}

fn tmpfs(on: &Path) -> Stacked {
    mount("foreign", on, "tmpfs", MountFlags::empty(), c"size=1m").unwrap();
    Stacked(on.to_owned())
}

/// True if the directory has a key of its own.
fn has_own_key(vault: &Vault, dir: &Path) -> bool {
    let shown = vault.kmsfs(["--json", "policy", "show", dir.to_str().unwrap()]);
    serde_json::from_str::<Value>(&shown).unwrap()["inherited"] == false
}

/// The path below the mountpoint was taken for one from the root of the volume: the root of a bind
/// mount gave the whole volume another key, and files stayed under the key that they were to leave.
#[test]
fn regression_a_directory_behind_a_bind_mount_is_the_one_that_gets_the_key() {
    assert!(is_root(), "only root can mount");
    let vault = Vault::new("behind");
    let mounted = vault.mount();
    vault.kmsfs(["key", "create", "--alias", KEY]);
    for dir in ["sub/finance", "finance"] {
        fs::create_dir_all(mounted.path(dir)).unwrap();
    }
    let bound = vault.outside_dir("bound");
    mount_bind(mounted.path("sub"), &bound).unwrap();
    let stacked = Stacked(bound.clone());
    vault.kmsfs(["policy", "set", bound.join("finance").to_str().unwrap(), "--key", KEY]);
    assert!(has_own_key(&vault, &mounted.path("sub/finance")));
    assert!(!has_own_key(&vault, &mounted.path("finance")));
    vault.kmsfs(["policy", "set", bound.to_str().unwrap(), "--key", KEY]);
    assert!(has_own_key(&vault, &mounted.path("sub")));
    assert!(!has_own_key(&vault, &mounted.path("finance")), "the whole volume did not get it");
    // What is taken away is the bind mount; the filesystem lives on.
    vault.kmsfs(["umount", bound.to_str().unwrap()]);
    assert!(fs::read_dir(&bound).unwrap().next().is_none());
    drop(stacked);
    assert!(mounted.path("sub/finance").is_dir());
}

/// The directory beneath got the key.
#[test]
fn regression_a_directory_of_another_filesystem_gets_no_key() {
    assert!(is_root(), "only root can mount");
    let vault = Vault::new("over");
    let mounted = vault.mount();
    vault.kmsfs(["key", "create", "--alias", KEY]);
    let over = mounted.path("over");
    fs::create_dir(&over).unwrap();
    let stacked = tmpfs(&over);
    let words = ["policy", "set", over.to_str().unwrap(), "--key", KEY];
    let refused = vault.command().args(words).output().unwrap();
    assert_eq!(refused.status.code(), Some(18), "{refused:?}");
    drop(stacked);
    assert!(!has_own_key(&vault, &over));
}

/// Somebody's filesystem over the mount was taken away, with the only copy of their files, by
/// `umount` and by the end of the daemon.
#[test]
fn regression_what_is_mounted_over_a_mount_stays() {
    assert!(is_root(), "only root can mount");
    let vault = Vault::new("stacked");
    let mounted = vault.mount();
    let root = mounted.root();
    let stacked = tmpfs(&root);
    let precious = root.join("precious");
    fs::write(&precious, "only copy").unwrap();
    for lazy in [&[][..], &["--lazy"]] {
        let refused = vault.command().arg("umount").args(lazy).arg(&root).output().unwrap();
        assert!(!refused.status.success());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("something else is mounted over it"), "{said}");
    }
    // In use, it would go lazily.
    let held = fs::File::open(&precious).unwrap();
    kill_process(mounted.pid(), Signal::TERM).unwrap();
    while !vault.log().contains("cannot unmount") {
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "only copy");
    drop((held, stacked));
    mounted.unmount();
}
