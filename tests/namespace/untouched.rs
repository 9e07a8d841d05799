//! What changes of the vault's own files in a user's directory: for him the directory has not changed.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kmsfs::volume::Repair;
use kmsfs::volume::attr::Timestamp;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

use crate::fixture::{Fixture, REPLACE, ROOT};

const OLD: Timestamp = Timestamp { secs: 1_000_000_000, nanos: 123_456_789 };
const DESCRIPTOR: &str = ".kmsfs.dir";

/// A volume with `d`, and in it a file of this name; `d` is in the backing directory that follows.
fn with_a_directory(name: &str) -> (Fixture, PathBuf) {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap().ino;
    if !name.is_empty() {
        fixture.file(dir, name, "contents").unwrap();
    }
    let files = fixture.backing(|name| name == DESCRIPTOR);
    let file = files.iter().find(|file| file.parent() != Some(&fixture.vault())).unwrap();
    let backing = file.parent().unwrap().to_owned();
    fixture.reopen();
    (fixture, backing)
}

fn set_old(dir: &Path) {
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, OLD.nanos);
    File::open(dir).unwrap().set_modified(old).unwrap();
}

fn shown(fixture: &Fixture, name: &str) -> Timestamp {
    let ino = fixture.find(name).unwrap();
    fixture.volume().attr(ino).unwrap().mtime
}

/// Once on XFS, after a power cut: the directory had the time of the mount that found its descriptor gone.
#[test]
fn regression_a_descriptor_that_is_mended_moves_no_time() {
    let damages: [fn(&Path); 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| fs::write(file, [7; 512]).unwrap(),
        |file| {
            fs::remove_file(file).unwrap();
            symlink("/etc/passwd", file).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let (fixture, backing) = with_a_directory("f");
        damage(&backing.join(DESCRIPTOR));
        set_old(&backing);
        assert_eq!(fixture.contents(fixture.find("d/f").unwrap()), "contents");
        let mended = fs::symlink_metadata(backing.join(DESCRIPTOR)).unwrap();
        assert!(mended.is_file() && mended.size() == 512, "{number}");
        assert_eq!(shown(&fixture, "d"), OLD, "{number}");
        fixture.file(fixture.find("d").unwrap(), "new", "").unwrap();
        assert!(shown(&fixture, "d") != OLD, "{number}: a user's change");
    }
}

#[test]
fn a_descriptor_that_is_gone_comes_back_with_a_change_of_it_and_moves_no_time() {
    type Act = fn(&Fixture);
    let acts: [(&str, &str, Act); 2] = [
        ("d", "policy", |fixture| {
            let (dir, key) = (fixture.find("d").unwrap(), fixture.new_key());
            fixture.volume().set_dir_policy(dir, key, None).unwrap();
        }),
        ("e", "rename", |fixture| fixture.rename((ROOT, "d"), (ROOT, "e"), REPLACE).unwrap()),
    ];
    for (name, what, act) in acts {
        let (fixture, backing) = with_a_directory("f");
        fixture.find("d/f").unwrap();
        fs::remove_file(backing.join(DESCRIPTOR)).unwrap();
        set_old(&backing);
        act(&fixture);
        assert_eq!(shown(&fixture, name), OLD, "{what}");
        let there = fixture.backing(|name| name == DESCRIPTOR);
        assert_eq!(there.len(), 2, "{what}");
    }
}

#[test]
fn a_long_name_that_is_written_down_again_moves_no_time() {
    let damages: [fn(&Path); 2] = [
        |sidecar| fs::write(sidecar, "another").unwrap(),
        |sidecar| fs::remove_file(sidecar).unwrap(),
    ];
    for damage in damages {
        let long = "n".repeat(200);
        let (fixture, backing) = with_a_directory(&long);
        let sidecars = fixture.backing(|name| name.ends_with(".name"));
        assert_eq!(sidecars.len(), 1, "{sidecars:?}");
        damage(&sidecars[0]);
        set_old(&backing);
        assert_eq!(fixture.contents(fixture.find(&format!("d/{long}")).unwrap()), "contents");
        assert!(fs::metadata(&sidecars[0]).unwrap().size() > 100);
        assert_eq!(shown(&fixture, "d"), OLD);
    }
}

#[test]
fn what_a_crash_left_is_removed_and_moves_no_time() {
    for repairs in [false, true] {
        let (fixture, backing) = with_a_directory("f");
        let leftover = backing.join(".kmsfs.tmp.00000000.7");
        fs::create_dir(&leftover).unwrap();
        fs::write(leftover.join(DESCRIPTOR), "torn").unwrap();
        fs::write(backing.join(".kmsfs.tmp.00000000.8"), "").unwrap();
        set_old(&backing);
        if repairs {
            let go_on = &mut |_: &_| ControlFlow::Continue(());
            let report = fixture.volume().check(Repair::Yes, go_on).unwrap();
            assert!(report.is_clean(), "{report:?}");
        } else {
            assert_eq!(fixture.list(fixture.find("d").unwrap()), ["f"]);
        }
        assert!(fixture.backing(|name| name.starts_with(".kmsfs.tmp.")).is_empty(), "{repairs}");
        assert_eq!(shown(&fixture, "d"), OLD, "{repairs}");
    }
}

/// The descriptor went first, and came back.
#[test]
fn a_directory_that_is_not_removed_after_all_has_its_time() {
    let (fixture, backing) = with_a_directory("");
    let above = File::open(fixture.vault()).unwrap();
    let flags = ioctl_getflags(&above).unwrap_or(IFlags::empty());
    fixture.find("d").unwrap();
    fixture.mkdir(ROOT, "other").unwrap();
    set_old(&backing);
    if ioctl_setflags(&above, flags | IFlags::APPEND).is_err() {
        eprintln!("not tried: no directory here can be kept from losing entries");
        return;
    }
    let removed = fixture.volume().rmdir(ROOT, b"d");
    let renamed = fixture.rename((ROOT, "other"), (ROOT, "d"), REPLACE);
    ioctl_setflags(&above, flags).unwrap();
    assert!(removed.is_err() && renamed.is_err());
    assert_eq!(fs::metadata(backing.join(DESCRIPTOR)).unwrap().size(), 512);
    assert_eq!(shown(&fixture, "d"), OLD);
}
