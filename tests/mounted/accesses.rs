//! Access times.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::harness::{Shell, Vault};

/// Longer than the clock of a filesystem stands still.
const TICK: Duration = Duration::from_millis(50);

#[test]
fn the_first_access_after_a_change_is_noted_and_changes_nothing_else() {
    let vault = Vault::new("relatime");
    let mount = vault.mount();
    let (path, twin) = (mount.path("file"), vault.outside("file"));
    for path in [&path, &twin] {
        fs::write(path, "contents").unwrap();
    }
    let reads = [("first", 0, true), ("second", 0, false)];
    for round in ["cached", "changed"] {
        for (read, flags, noted) in reads {
            for path in [&path, &twin] {
                assert_eq!(moves(path, flags), noted, "{read} of {round}: {}", path.display());
            }
        }
        for path in [&path, &twin] {
            thread::sleep(TICK);
            fs::write(path, "other contents").unwrap();
        }
    }
    mount.unmount();
    let mount = vault.mount();
    assert!(moves(&mount.path("file"), 0), "what changed before the mount");
    assert!(!moves(&mount.path("file"), 0));
}

/// It was taken for any other open.
#[test]
fn regression_who_asks_for_no_trace_leaves_none() {
    let vault = Vault::new("o_noatime");
    let mount = vault.mount();
    let path = mount.path("file");
    fs::write(&path, "contents").unwrap();
    assert!(!moves(&path, libc::O_NOATIME), "from the cache");
    mount.unmount();
    let mount = vault.mount();
    assert!(!moves(&path, libc::O_NOATIME), "from the vault");
    assert!(moves(&path, 0));
    mount.unmount();
}

/// The kernel left it to the daemon, which read as on any mount.
#[test]
fn regression_a_noatime_mount_notes_no_access() {
    let vault = Vault::new("noatime");
    let options = ["-o", "noatime"];
    let mount = vault.mount_with(&["--create", "-o", "noatime"]);
    let (dir, path) = (mount.path("dir"), mount.path("dir/file"));
    fs::create_dir(&dir).unwrap();
    fs::write(&path, "contents").unwrap();
    assert!(!moves(&path, 0), "from the cache");
    mount.unmount();
    let mount = vault.mount_with(&options);
    let before = times(&dir);
    assert!(!moves(&path, 0), "from the vault");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(times(&dir), before, "of the directory");
    mount.unmount();
}

#[test]
fn with_strictatime_each_open_for_reading_is_an_access() {
    let vault = Vault::new("strictatime");
    let options = ["-o", "strictatime"];
    let mount = vault.mount_with(&["--create", "-o", "strictatime"]);
    let path = mount.path("file");
    fs::write(&path, "contents").unwrap();
    for count in 1..4 {
        assert!(moves(&path, 0), "read {count}");
    }
    assert!(!moves(&path, libc::O_NOATIME));
    Shell::new(mount.root()).run("chattr +A file");
    assert!(!moves(&path, 0), "of a file with that flag");
    Shell::new(mount.root()).run("chattr -A file");
    assert!(moves(&path, 0));
    let before = times(&path);
    mount.unmount();
    let mount = vault.mount_with(&options);
    assert_eq!(times(&path), before, "after a remount");
    mount.unmount();
}

/// Reads a file that was opened with these flags; true if that moved its access time. No other time
/// moves.
fn moves(path: &Path, flags: i32) -> bool {
    thread::sleep(TICK);
    let before = times(path);
    let mut file: File = OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    drop(file);
    let after = times(path);
    assert_eq!(after[1..], before[1..], "other times of {}", path.display());
    after[0] != before[0]
}

/// Access, modification and change: as the kernel remembers them, which is as they are.
fn times(path: &Path) -> [(i64, u32); 3] {
    let [remembered, asked] = [AtFlags::empty(), AtFlags::STATX_FORCE_SYNC].map(|how| {
        let found = statx(CWD, path, how, StatxFlags::BASIC_STATS).unwrap();
        [found.stx_atime, found.stx_mtime, found.stx_ctime].map(|time| (time.tv_sec, time.tv_nsec))
    });
    assert_eq!(remembered, asked, "{}", path.display());
    asked
}
