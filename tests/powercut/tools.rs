//! Commands, scratch directories, and what these tests need of a machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) use crate::programs::program;

/// Fails unless the tests run as root, who alone may have block devices and mount filesystems.
pub(crate) fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "cutting the power of a disk takes root (loop devices, mounts of ext4, XFS and btrfs): as \
         an ordinary user, leave this suite out with `cargo test -- --skip powercut::`"
    );
    assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: run `modprobe fuse`");
    assert!(
        Path::new("/dev/loop-control").exists(),
        "/dev/loop-control is missing: run `modprobe loop`"
    );
}

/// The output of a command; what it said when it failed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{said}{errors}", output.status))
}

/// Runs a command that clears up, so whether it works is of no interest.
pub(crate) fn try_run(command: &mut Command) -> bool {
    run(command).is_ok()
}

/// A directory for one test, removed on drop.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::var_os("KMSFS_TEST_DIR").map_or("/var/tmp".into(), PathBuf::from);
        let dir = base.join(format!("kmsfs-{}-{count}-cut-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        Self(dir)
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new directory inside.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the images of failed cuts are kept.
pub(crate) fn kept(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("powercut");
    fs::create_dir_all(&dir).unwrap();
    dir.join(name)
}
