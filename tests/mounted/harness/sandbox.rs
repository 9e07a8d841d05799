//! Scratch directories on a real filesystem.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own for one test, removed on drop.
pub(crate) struct Sandbox {
    dir: PathBuf,
}

impl Sandbox {
    /// Makes an empty directory whose name starts with `name`.
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base().join(format!("kmsfs-{}-{count}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        refuse_memory_filesystem(&dir);
        Self { dir }
    }

    /// A path inside the sandbox.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.dir.join(relative)
    }

    /// Creates a directory inside the sandbox.
    pub(crate) fn dir(&self, relative: impl AsRef<Path>) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// True when the tests run as root, which adds the parts that need it.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `KMSFS_TEST_DIR`, else `/var/tmp` (on disk, open to the other users that tests turn into, and
/// short, which matters to socket paths), else cargo's scratch directory.
fn base() -> PathBuf {
    if let Some(dir) = std::env::var_os("KMSFS_TEST_DIR") {
        return dir.into();
    }
    let shared = PathBuf::from("/var/tmp");
    if in_memory(&shared) { env!("CARGO_TARGET_TMPDIR").into() } else { shared }
}

fn in_memory(dir: &Path) -> bool {
    const TMPFS: u32 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(TMPFS))
}

fn refuse_memory_filesystem(dir: &Path) {
    assert!(
        !in_memory(dir),
        "{} is on tmpfs, and these tests need a disk: set KMSFS_TEST_DIR to a directory on one",
        dir.display()
    );
}
