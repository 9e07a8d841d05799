//! Descriptors: kept twice, repaired, and not missed where they are not needed.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use kmsfs::volume::backing::Durability;
use kmsfs::volume::{References, Repair, RewrapJob, VolumeError};

use crate::fixture::{Fixture, ROOT, caller};

const ATTRIBUTE: &str = "user.kmsfs.dir";

/// A volume with `d/f`, freshly opened, and the backing directory of `d`.
fn with_a_directory() -> (Fixture, PathBuf) {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "d").unwrap();
    fixture.file(dir.ino, "f", "contents").unwrap();
    let files = fixture.backing(|name| name == ".kmsfs.dir");
    let file = files.iter().find(|file| file.parent() != Some(&fixture.vault())).unwrap();
    let backing = file.parent().unwrap().to_owned();
    fixture.reopen();
    (fixture, backing)
}

fn attribute(dir: &PathBuf) -> Option<usize> {
    rustix::fs::lgetxattr(dir, ATTRIBUTE, &mut [0_u8; 512]).ok()
}

#[test]
fn a_lost_descriptor_file_comes_back_from_the_attribute() {
    let (fixture, backing) = with_a_directory();
    fs::remove_file(backing.join(".kmsfs.dir")).unwrap();
    assert_eq!(fixture.contents(fixture.find("d/f").unwrap()), "contents");
    assert_eq!(fs::metadata(backing.join(".kmsfs.dir")).unwrap().size(), 512);
}

#[test]
fn a_torn_descriptor_file_comes_back_from_the_attribute() {
    let (fixture, backing) = with_a_directory();
    let mut bytes = fs::read(backing.join(".kmsfs.dir")).unwrap();
    let whole = bytes.clone();
    bytes[100] ^= 1;
    fs::write(backing.join(".kmsfs.dir"), bytes).unwrap();
    assert_eq!(fixture.contents(fixture.find("d/f").unwrap()), "contents");
    assert_eq!(fs::read(backing.join(".kmsfs.dir")).unwrap(), whole);
}

#[test]
fn a_lost_attribute_comes_back_from_the_file() {
    let (fixture, backing) = with_a_directory();
    rustix::fs::lremovexattr(&backing, ATTRIBUTE).unwrap();
    assert_eq!(fixture.contents(fixture.find("d/f").unwrap()), "contents");
    assert_eq!(attribute(&backing), Some(512));
}

#[test]
fn a_directory_without_a_descriptor_does_not_hide_its_siblings() {
    let (fixture, backing) = with_a_directory();
    rustix::fs::lremovexattr(&backing, ATTRIBUTE).unwrap();
    fs::remove_file(backing.join(".kmsfs.dir")).unwrap();
    fixture.file(ROOT, "sibling", "").unwrap();
    assert_eq!(fixture.list(ROOT), ["d", "sibling"]);

    let broken = fixture.find("d").unwrap();
    assert!(matches!(fixture.file(broken, "new", ""), Err(VolumeError::Tampered(_))));
    assert!(matches!(fixture.mkdir(broken, "new"), Err(VolumeError::Tampered(_))));
    let names = fixture.list(broken);
    assert!(names.len() == 1 && names[0].starts_with("kmsfs.foreign."), "{names:?}");
    fixture.volume().unlink(broken, names[0].as_bytes()).unwrap();
    fixture.volume().rmdir(ROOT, b"d").unwrap();
    assert_eq!(fixture.list(ROOT), ["sibling"]);
}

#[test]
fn another_directorys_descriptor_is_not_accepted_with_its_names() {
    let (fixture, backing) = with_a_directory();
    let other = fs::read(fixture.vault().join(".kmsfs.dir")).unwrap();
    fs::write(backing.join(".kmsfs.dir"), &other).unwrap();
    rustix::fs::lsetxattr(&backing, ATTRIBUTE, &other, rustix::fs::XattrFlags::empty()).unwrap();
    let dir = fixture.find("d").unwrap();
    let names = fixture.list(dir);
    assert!(names.iter().all(|name| name.starts_with("kmsfs.foreign.")), "{names:?}");
}

#[test]
fn what_a_crash_left_unfinished_is_removed_when_it_is_met() {
    let (fixture, backing) = with_a_directory();
    let leftover = backing.join(".kmsfs.tmp.00000000.7");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join(".kmsfs.dir"), "torn").unwrap();
    fs::write(backing.join(".kmsfs.tmp.00000000.8"), "").unwrap();
    assert_eq!(fixture.list(fixture.find("d").unwrap()), ["f"]);
    assert!(fixture.backing(|name| name.starts_with(".kmsfs.tmp.")).is_empty());
}

#[test]
fn syncing_a_directory_after_many_changes_succeeds() {
    let fixture = Fixture::new();
    for i in 0..100 {
        fixture.mkdir(ROOT, &format!("d{i}")).unwrap();
        fixture.file(ROOT, &format!("{i}{}", "n".repeat(200)), "").unwrap();
    }
    fixture.volume().rmdir(ROOT, b"d5").unwrap();
    fixture.volume().sync_dir(ROOT, Durability::Everything).unwrap();
    fixture.mkdir(ROOT, "last").unwrap();
    fixture.volume().sync_dir(ROOT, Durability::Everything).unwrap();
}

/// Nobody looked into a directory that a crash had left without a name: its files were not re-wrapped,
/// their material was destroyed, and a repair took the targets of its links away.
#[test]
fn regression_what_is_in_an_unnamed_directory_is_not_taken_for_absent() {
    for name in [".kmsfs.tmp.00000000.9", ".kmsfs.dir.copy"] {
        is_missed_under(name);
    }
}

fn is_missed_under(name: &str) {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "file", "precious").unwrap();
    fixture.volume().symlink(dir, b"link", &[b'x'; 4000], caller()).unwrap();
    let ours = |name: &str| !name.starts_with(".kmsfs") && name != "links";
    let backing = fixture.backing(ours).into_iter().find(|path| path.is_dir()).unwrap();
    fs::rename(&backing, backing.with_file_name(name)).unwrap();
    fixture.reopen();
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    let found = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.unreadable, 1, "the daemon's count");
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    let failed: Vec<_> = report.failed.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(failed, [PathBuf::from(name)], "the re-wrap");
    fixture.close();
    assert_eq!(References::scan(&fixture.vault()).unwrap().1.unreadable, 1, "the survey");
    fixture.reopen();
    fixture.volume().check(Repair::Yes, &mut |_| ControlFlow::Continue(())).unwrap();
    let links = fs::read_dir(fixture.vault().join(".kmsfs/links")).unwrap();
    assert_eq!(links.count(), 1, "the target of its link stays");
    let found = fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!((found.unreadable, found.files.values().sum::<u64>()), (0, 1));
}

/// A crash left a directory under its temporary name, with something in it: no mount showed it, and the
/// directory above could never be removed.
#[test]
fn regression_an_unnamed_directory_with_something_in_it_is_made_visible() {
    let mut fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "file", "contents").unwrap();
    let ours = |name: &str| !name.starts_with(".kmsfs");
    let backing = fixture.backing(ours).into_iter().find(|path| path.is_dir()).unwrap();
    fs::rename(&backing, backing.with_file_name(".kmsfs.tmp.00000000.9")).unwrap();
    fixture.reopen();
    let check = |repair| {
        let report = fixture.volume().check(repair, &mut |_| ControlFlow::Continue(())).unwrap();
        report
            .problems
            .iter()
            .map(|problem| (problem.leftover, problem.repaired))
            .collect::<Vec<_>>()
    };
    assert_eq!(check(Repair::No), [(false, false)]);
    assert!(fixture.list(ROOT).is_empty());
    assert_eq!(check(Repair::Yes), [(false, true)]);
    let shown = fixture.list(ROOT);
    assert_eq!(shown, ["kmsfs.foreign.kmsfs.tmp.00000000.9"]);
    let dir = fixture.find(&shown[0]).unwrap();
    for name in fixture.list(dir) {
        fixture.volume().unlink(dir, name.as_bytes()).unwrap();
    }
    fixture.volume().rmdir(ROOT, shown[0].as_bytes()).unwrap();
    assert!(fixture.list(ROOT).is_empty());
}
