//! Who may rename the mountpoint, or a directory above it, leads no mount elsewhere.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Vault, binary};

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let soon = (0..2000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        is_so()
    });
    assert!(soon, "{what}");
}

fn is_mount(dir: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).unwrap_or(0);
    device(dir) != device(dir.parent().unwrap())
}

/// A mount that waits for its passphrase: everything was looked at, and nothing is mounted.
fn waiting(vault: &Vault, mountpoint: &Path) -> Child {
    let child = Command::new(binary())
        .arg("--keystore")
        .arg(vault.keystore())
        .args(["--passphrase-fd", "0", "mount", "--foreground", "--create"])
        .arg(vault.store())
        .arg(mountpoint)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    wait_until("nothing is going to mount", || {
        fs::read_to_string(&children).is_ok_and(|text| !text.is_empty())
    });
    child
}

/// It was mounted where the path led by then, and unmounted where it led later.
#[test]
fn regression_an_exchanged_mountpoint_leads_no_mount_elsewhere() {
    let vault = Vault::new("exchanged");
    let [above, victim] = ["above", "victim"].map(|name| vault.outside_dir(format!("{name}/m")));
    let [above, victim] = [above, victim].map(|m| m.parent().unwrap().to_owned());
    let mut daemon = waiting(&vault, &above.join("m"));
    let moved = vault.outside("moved");
    fs::rename(&above, &moved).unwrap();
    symlink(&victim, &above).unwrap();
    daemon.stdin.take().unwrap().write_all(b"passphrase\n").unwrap();
    wait_until("not mounted on what was looked at", || is_mount(&moved.join("m")));
    assert!(!is_mount(&victim.join("m")));
    fs::write(moved.join("m/file"), "x").unwrap();

    let elsewhere = vault.outside("elsewhere");
    fs::rename(&moved, &elsewhere).unwrap();
    symlink(&victim, &moved).unwrap();
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    assert!(!is_mount(&elsewhere.join("m")));
    assert!(!elsewhere.join("m/file").exists() && !victim.join("m/file").exists());
}

#[test]
fn a_mountpoint_that_others_can_exchange_is_told_of() {
    let vault = Vault::new("writable");
    let above = vault.mountpoint().parent().unwrap().to_owned();
    let warning = "others can put another directory in the place of";
    vault.mount().unmount();
    assert!(!vault.log().contains(warning), "{}", vault.log());
    fs::set_permissions(&above, fs::Permissions::from_mode(0o777)).unwrap();
    vault.mount().unmount();
    let log = vault.log();
    assert!(log.contains(warning) && log.contains("has mode 0777"), "{log}");
}

/// Whoever writes to the vault can put a link under any name.
#[test]
fn with_nosymfollow_no_link_is_followed() {
    let vault = Vault::new("nosymfollow");
    let mount = vault.mount_with(&["--create", "-o", "nosymfollow"]);
    fs::write(mount.path("file"), "x").unwrap();
    symlink("file", mount.path("link")).unwrap();
    assert_eq!(fs::read_link(mount.path("link")).unwrap(), Path::new("file"));
    let followed = fs::write(mount.path("link"), "y").unwrap_err();
    assert_eq!(followed.raw_os_error(), Some(libc::ELOOP));
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"x");
    mount.unmount();
}
