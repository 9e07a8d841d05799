//! What a daemon may still do when it serves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Vault, is_root};

/// The capabilities of `systemd/kmsfs@.service`, as `/proc/PID/status` shows them.
const BOUNDED: u64 = 0x9820_421f;
/// Of these, the one that makes device nodes.
const MKNOD: u64 = 1 << 27;

#[test]
fn every_thread_of_a_daemon_is_confined_and_its_keeper_bounded() {
    let vault = Vault::new("confined");
    let mount = vault.mount();
    fs::write(mount.path("file"), "x").unwrap();
    let pid = mount.pid().as_raw_nonzero().get();
    let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().collect();
    assert!(tasks.len() > 4, "{} threads", tasks.len());
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert_eq!(field(&status, "NoNewPrivs"), "1");
        assert_eq!(
            (field(&status, "Seccomp"), field(&status, "Seccomp_filters")),
            ("2".into(), "3".into())
        );
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            let has = u64::from_str_radix(&field(&status, set), 16).unwrap();
            assert!(!is_root() || has & !BOUNDED == 0, "{set}: {has:x}");
        }
        assert_eq!(field(&status, "CapInh"), "0000000000000000");
    }
    let own = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert_ne!(field(&own, "VmLck"), "0 kB", "no page with keys is locked");
    let root = mount.root();
    let status = vault.kmsfs(["--json", "status", root.to_str().unwrap()]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["confined"], "files, privileges, system calls");
    let keeper = fs::read_to_string(format!("/proc/{}/status", keeper(pid))).unwrap();
    let has = u64::from_str_radix(&field(&keeper, "CapEff"), 16).unwrap();
    // Root's mounts, unmounts and looks at processes; that of a user is nobody special.
    assert_eq!(has.count_ones(), if is_root() { 4 } else { 0 }, "{has:x}");
}

/// A daemon that was taken over made a node of a disk in the vault and opened it.
#[test]
fn regression_a_daemon_makes_device_nodes_only_where_they_work() {
    if !is_root() {
        return;
    }
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let vault = Vault::new("devices");
    for (options, may) in [("", false), ("nodev", false), ("dev", true)] {
        let options = if options.is_empty() { vec!["--create"] } else { vec!["-o", options] };
        let mount = vault.mount_with(&options);
        let make = |name: &str, kind, device| {
            let made = mknodat(CWD, mount.path(name), kind, Mode::RUSR, device);
            made.map(|()| fs::remove_file(mount.path(name)).unwrap())
        };
        let refused = Err(rustix::io::Errno::PERM);
        let expected = if may { Ok(()) } else { refused };
        assert_eq!(make("disk", FileType::BlockDevice, makedev(7, 0)), expected, "{options:?}");
        assert_eq!(make("null", FileType::CharacterDevice, makedev(1, 3)), expected);
        make("whiteout", FileType::CharacterDevice, 0).unwrap();
        make("fifo", FileType::Fifo, 0).unwrap();
        let pid = mount.pid().as_raw_nonzero().get();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let has = u64::from_str_radix(&field(&status, "CapBnd"), 16).unwrap();
        assert_eq!(has & MKNOD != 0, may, "{has:x}");
        mount.unmount();
    }
}

/// The directory of the keystore itself is reached, not that of a link to it.
#[test]
fn a_confined_daemon_uses_a_keystore_anywhere_and_by_a_link() {
    let vault = Vault::new("elsewhere");
    let (real, link) = (vault.outside_dir("far/away").join("store.db"), vault.outside("link.db"));
    let kmsfs = |keystore: &Path, words: &[&str]| {
        let mut command = Command::new(crate::harness::binary());
        command.arg("--keystore").arg(keystore).arg("--key-file").arg(vault.outside("key"));
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let (store, mountpoint) = (vault.store().to_str().unwrap(), vault.mountpoint());
    let mountpoint = mountpoint.to_str().unwrap();
    kmsfs(&real, &["mount", "--create", store, mountpoint]);
    kmsfs(&real, &["umount", mountpoint]);
    symlink(&real, &link).unwrap();
    kmsfs(&link, &["mount", store, mountpoint]);
    fs::write(vault.mountpoint().join("file"), "x").unwrap();
    kmsfs(&real, &["key", "rotate", "alias/kmsfs/default"]);
    kmsfs(&real, &["rewrap", mountpoint]);
    assert_eq!(fs::read(vault.mountpoint().join("file")).unwrap(), b"x");
    kmsfs(&link, &["umount", mountpoint]);
}

/// Nothing of a daemon is left behind: not even by SIGKILL.
#[test]
fn the_keeper_ends_with_its_daemon_and_not_before() {
    let vault = Vault::new("keeper");
    let mount = vault.mount();
    let keeper = keeper(mount.pid().as_raw_nonzero().get());
    for signal in ["TERM", "INT", "HUP"] {
        let sent = Command::new("kill").args(["-s", signal, &keeper.to_string()]).status();
        assert!(sent.unwrap().success());
    }
    assert!(is_running(keeper));
    mount.kill();
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        !is_running(keeper)
    });
    assert!(gone, "the keeper outlives its daemon");
}

fn keeper(daemon: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).unwrap();
    let children: Vec<i32> =
        children.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// One that has ended waits for its parent as a zombie.
fn is_running(pid: i32) -> bool {
    let path = format!("/proc/{pid}/status");
    Path::new(&path).exists()
        && !fs::read_to_string(path).is_ok_and(|text| field(&text, "State").starts_with('Z'))
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}
