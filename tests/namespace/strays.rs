//! Walks over the tree that must miss nothing: what is renamed under them, and what is below a mount.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use kmsfs::id::MaterialId;
use kmsfs::keystore::{KeyRef, MaterialState};
use kmsfs::volume::{References, Repair, RewrapJob, RewrapReport, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};
use crate::sessions::{PAGE, pattern, recover, sealed, write};

/// A walk goes through one of two directories first; what it has to find comes there from the other
/// one when it is through, and goes back when it is through that.
struct Dodging {
    fixture: Fixture,
    first: u64,
    second: u64,
    /// What everything was wrapped under before the key was rotated.
    old: MaterialId,
}

impl Dodging {
    fn new() -> Self {
        let fixture = Fixture::new();
        let old = fixture.keystore.current_material(fixture.key()).unwrap();
        for name in ["p", "q"] {
            let dir = fixture.mkdir(ROOT, name).unwrap().ino;
            fixture.file(dir, "mark", "mark").unwrap();
        }
        // The one that is listed last is visited first.
        let mut order: Vec<u64> = Vec::new();
        for entry in fs::read_dir(fixture.vault()).unwrap() {
            let ino = entry.unwrap().metadata().unwrap().ino();
            order.extend(
                ["p", "q"]
                    .map(|name| fixture.find(name).unwrap())
                    .iter()
                    .filter(|dir| **dir == ino),
            );
        }
        let [second, first] = order[..] else { panic!("{order:?}") };
        let dodger = fixture.mkdir(second, "x").unwrap().ino;
        fixture.file(dodger, "f", "contents").unwrap();
        let key = KeyRef::Id(fixture.key());
        fixture.keystore.rotate_key_on_demand(&key, SystemTime::now()).unwrap();
        Self { fixture, first, second, old }
    }

    /// After the marks of the two directories.
    fn dodge(&self, step: u64) {
        let (from, to) = match step {
            1 => (self.second, self.first),
            2 => (self.first, self.second),
            _ => return,
        };
        self.fixture.rename((from, "x"), (to, "x"), REPLACE).unwrap();
    }

    fn rewrap(&self, job: RewrapJob) -> RewrapReport {
        let progress = &mut |report: &RewrapReport| {
            self.dodge(report.scanned);
            ControlFlow::Continue(())
        };
        self.fixture.volume().rewrap(job, progress, &mut |_| {}).unwrap()
    }

    /// How many files and directories need the old material.
    fn behind(&self) -> u64 {
        let (_, found) = References::scan(&self.fixture.vault()).unwrap();
        let needed = found.of_material(self.old);
        assert_eq!(found.unreadable, 0);
        needed.files + needed.directories
    }
}

/// It was complete, and the directory that had been moved was under material that could be retired.
#[test]
fn regression_a_rewrap_finds_what_is_renamed_under_it() {
    let dodging = Dodging::new();
    let report = dodging.rewrap(RewrapJob::default());
    assert!(report.complete, "{report:?}");
    assert_eq!(dodging.behind(), 0);
}

/// The file came under a key that its directory did not accept.
#[test]
fn regression_a_rewrap_to_another_key_finds_what_is_renamed_under_it() {
    let mut dodging = Dodging::new();
    let (from, to) = (dodging.fixture.key(), dodging.fixture.new_key());
    let report =
        dodging.rewrap(RewrapJob { from: Some(from), to: Some(to), ..RewrapJob::default() });
    assert!(report.complete, "{report:?}");
    let fixture = &mut dodging.fixture;
    fixture.disable(from);
    fixture.reopen();
    let there = ["p/x/f", "q/x/f"].into_iter().find_map(|path| fixture.find(path).ok()).unwrap();
    assert_eq!(fixture.contents(there), "contents");
}

/// The directory was not counted, and the material that it needs was destroyed.
#[test]
fn regression_what_is_renamed_while_references_are_counted_is_counted() {
    let dodging = Dodging::new();
    let report =
        dodging.rewrap(RewrapJob { from: Some(dodging.fixture.new_key()), ..RewrapJob::default() });
    assert!(report.complete && dodging.behind() > 0);
    let mut moved = false;
    let found = dodging.fixture.volume().references(&mut |_| {
        // The root has been visited, and then the first of the two.
        if std::mem::replace(&mut moved, true) {
            let _ = dodging.fixture.rename((dodging.second, "x"), (dodging.first, "x"), REPLACE);
        }
        ControlFlow::Continue(())
    });
    let (found, needed) =
        found.map(|found| (found.unreadable, found.of_material(dodging.old))).unwrap();
    assert_eq!((found, needed.files), (0, 3));
}

#[test]
fn a_rewrap_ends_while_somebody_renames_all_the_time() {
    let dodging = Dodging::new();
    let (volume, stop) = (dodging.fixture.shared(), AtomicBool::new(false));
    let report = thread::scope(|scope| {
        let renaming = scope.spawn(|| {
            let mut at = [dodging.second, dodging.first];
            while !stop.load(Ordering::Relaxed) {
                dodging.fixture.rename((at[0], "x"), (at[1], "x"), REPLACE).unwrap();
                at.reverse();
            }
        });
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        let report = volume.rewrap(RewrapJob::default(), go_on, &mut |_| {});
        stop.store(true, Ordering::Relaxed);
        renaming.join().unwrap();
        report.unwrap()
    });
    assert!(report.complete, "{report:?}");
    assert_eq!(dodging.behind(), 0);
}

/// Something that is mounted on a directory, for a while.
struct Covered(PathBuf);

impl Covered {
    /// `None`, and a word about it, where that takes more rights than we have.
    fn new(dir: &Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(dir).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir.to_owned()));
        }
        eprintln!("nothing can be mounted here: nothing is tried below a mount");
        None
    }
}

impl Drop for Covered {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(&self.0).status().unwrap().success());
    }
}

/// The backing path of a directory of the root.
fn backing_dir(fixture: &Fixture, name: &str) -> PathBuf {
    let ino = fixture.find(name).unwrap();
    let mut entries = fs::read_dir(fixture.vault()).unwrap().map(Result::unwrap);
    entries.find(|entry| entry.metadata().unwrap().ino() == ino).unwrap().path()
}

/// All was well, and what lay below the mount was lost when it was gone.
#[test]
fn regression_what_is_below_a_mount_in_the_vault_is_not_taken_for_absent() {
    let mut fixture = Fixture::new();
    let (key, other) = (fixture.key(), fixture.new_key());
    let old = fixture.keystore.current_material(key).unwrap();
    let sub = fixture.mkdir(ROOT, "sub").unwrap().ino;
    fixture.file(sub, "f", "contents").unwrap();
    let target = "t".repeat(4000);
    let caller = crate::fixture::caller();
    fixture.volume().symlink(sub, b"link", target.as_bytes(), caller).unwrap();
    fixture.keystore.rotate_key_on_demand(&KeyRef::Id(key), SystemTime::now()).unwrap();
    let dir = backing_dir(&fixture, "sub");
    fixture.reopen();
    let Some(covered) = Covered::new(&dir) else { return };
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(!report.complete);
    assert!(report.failed.iter().any(|(path, _)| dir.ends_with(path)), "{report:?}");
    let found = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.unreadable, 1);
    assert_eq!(References::scan(&fixture.vault()).unwrap().1.unreadable, 1);
    let checked = fixture.volume().check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
    let problems = &checked.problems;
    assert!(!checked.is_clean() && problems.iter().any(|p| dir.ends_with(&p.path)), "{problems:?}");
    let parted = fixture.volume().set_dir_policy(ROOT, other, None);
    assert!(matches!(parted, Err(VolumeError::Io(rustix::io::Errno::BUSY))), "{parted:?}");
    drop(covered);

    fixture.reopen();
    assert_eq!(fixture.contents(fixture.find("sub/f").unwrap()), "contents");
    let link = fixture.find("sub/link").unwrap();
    assert_eq!(fixture.volume().read_link(link).unwrap(), target.as_bytes());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete);
    let rotations = fixture.keystore.list_key_rotations(&KeyRef::Id(key)).unwrap();
    assert!(rotations.iter().any(|of| of.key_material_state == MaterialState::NonCurrent));
    assert_eq!(References::scan(&fixture.vault()).unwrap().1.of_material(old).files, 0);
}

/// The crash was mended, and what it explained below the mount was refused.
#[test]
fn regression_a_crash_is_not_over_while_something_is_mounted_in_the_vault() {
    let (mut fixture, _) = sealed();
    fixture.mkdir(ROOT, "sub").unwrap();
    fixture.reopen();
    let sub = fixture.find("sub").unwrap();
    fixture.find("file").unwrap();
    fixture.rename((ROOT, "file"), (sub, "file"), REPLACE).unwrap();
    write(&fixture, "sub/file", 5 * PAGE as u64, &pattern(PAGE, 9)).unwrap();
    // Killed.
    fixture.reopen();
    let dir = backing_dir(&fixture, "sub");
    let Some(covered) = Covered::new(&dir) else { return };
    assert!(!recover(&fixture).complete);
    drop(covered);
    let report = recover(&fixture);
    assert!(report.complete && report.examined == 1, "{report:?}");
}
