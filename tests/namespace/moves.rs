//! A crash at any point of the rename of a directory leaves a tree that opens.
//!
//! Each state that the rename can leave on the disk is built by hand: where the name is, and which
//! of its three descriptors stands in the attribute and in the file.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kmsfs::envelope::{DirDescriptor, DirKeys, Places};
use kmsfs::keystore::EncryptionContext;
use kmsfs::volume::{KeyService, Options, Problem, Repair, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};

type Bytes = [u8; 512];

const ATTRIBUTE: &str = "user.kmsfs.dir";

/// What the descriptor of a directory is before, in the middle of and after its rename.
struct Steps {
    old: PathBuf,
    new: PathBuf,
    before: Bytes,
    both: Bytes,
    after: Bytes,
}

fn descriptor(dir: &Path) -> Bytes {
    fs::read(dir.join(".kmsfs.dir")).unwrap().try_into().unwrap()
}

fn find_backing(fixture: &Fixture, path: &str) -> PathBuf {
    let ino = fixture.find(path).unwrap();
    let is_it = |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|meta| meta.ino() == ino);
    fixture.backing(|_| true).into_iter().find(is_it).unwrap()
}

fn keys(fixture: &Fixture, descriptor: &DirDescriptor) -> DirKeys {
    let context = EncryptionContext::new()
        .with("kmsfs:format", "1")
        .with("kmsfs:volume", fixture.volume().id().to_string())
        .with("kmsfs:directory", descriptor.dir.to_string());
    let key = KeyService::unwrap(&*fixture.keystore, &descriptor.recipient, &context).unwrap();
    DirKeys::new(descriptor.dir, &key)
}

/// Renames `a/old` to `b/new` and takes down what the steps of that write.
fn rename(fixture: &Fixture) -> Steps {
    let (a, b) = (fixture.mkdir(ROOT, "a").unwrap().ino, fixture.mkdir(ROOT, "b").unwrap().ino);
    let moved = fixture.mkdir(a, "old").unwrap().ino;
    fixture.file(moved, "file", "contents").unwrap();
    let old = find_backing(fixture, "a/old");
    let before = descriptor(&old);
    fixture.rename((a, "old"), (b, "new"), REPLACE).unwrap();
    let new = find_backing(fixture, "b/new");
    let after = descriptor(&new);
    assert_eq!(attribute(&new), Some(after));
    let first = DirDescriptor::parse(&before).unwrap();
    let last = DirDescriptor::parse(&after).unwrap();
    let places = Places { from: first.places.unwrap().from, to: last.places.unwrap().to };
    assert!(first.places.unwrap().are_one() && last.places.unwrap().are_one());
    assert!(!places.are_one());
    let sequence = first.sequence + 1;
    let both = DirDescriptor { places: Some(places), sequence, ..first.clone() };
    assert_eq!(last.sequence, sequence + 1);
    let both = both.encode(&keys(fixture, &first));
    Steps { old, new, before, both, after }
}

fn attribute(dir: &Path) -> Option<Bytes> {
    let mut bytes = [0; 512];
    (rustix::fs::lgetxattr(dir, ATTRIBUTE, &mut bytes) == Ok(512)).then_some(bytes)
}

fn write(dir: &Path, attribute: Option<&Bytes>, file: Option<&Bytes>) {
    let flags = rustix::fs::XattrFlags::empty();
    match attribute {
        Some(bytes) => rustix::fs::lsetxattr(dir, ATTRIBUTE, bytes, flags).unwrap(),
        None => {
            let _ = rustix::fs::lremovexattr(dir, ATTRIBUTE);
        }
    }
    match file {
        Some(bytes) => fs::write(dir.join(".kmsfs.dir"), bytes).unwrap(),
        None => {
            let _ = fs::remove_file(dir.join(".kmsfs.dir"));
        }
    }
}

#[test]
fn every_state_that_a_crash_in_a_rename_leaves_opens_and_is_completed() {
    let mut fixture = Fixture::new();
    let steps = rename(&fixture);
    let Steps { old, new, before, both, after } = &steps;
    // One journal for names and attributes: the attribute is never ahead of the name, and the file,
    // which is written last, may be on the disk before both.
    let journaled = [
        (old, Some(before), Some(before)),
        (old, Some(both), Some(before)),
        (old, Some(before), Some(after)),
        (old, Some(both), Some(after)),
        (new, Some(both), Some(before)),
        (new, Some(both), Some(after)),
        (new, Some(after), Some(before)),
        (new, Some(after), Some(after)),
    ];
    // Synced step by step: both copies are for both places before the name moves and while it does.
    let synced = [
        (old, Some(before), Some(both)),
        (old, Some(both), Some(both)),
        (new, Some(both), Some(both)),
        (new, Some(after), Some(both)),
        (new, Some(both), Some(after)),
    ];
    // Without attributes, or with a lost file.
    let alone = [
        (old, None, Some(before)),
        (old, None, Some(both)),
        (new, None, Some(both)),
        (new, None, Some(after)),
        (old, Some(both), None),
        (new, Some(both), None),
    ];
    for (place, attribute_is, file_is) in journaled.into_iter().chain(synced).chain(alone) {
        if new.exists() && place == old {
            fs::rename(new, old).unwrap();
        } else if old.exists() && place == new {
            fs::rename(old, new).unwrap();
        }
        write(place, attribute_is, file_is);
        let path = if place == old { "a/old" } else { "b/new" };
        fixture.reopen_with(Options { read_only: true, ..Options::default() });
        let report =
            fixture.volume().check(Repair::No, &mut |_| ControlFlow::Continue(())).unwrap();
        let missing = |problem: &Problem| problem.what.contains("missing");
        let found: Vec<_> = report.problems.iter().filter(|one| !missing(one)).collect();
        assert!(found.is_empty(), "{found:?}: {path}");
        for _ in 0..2 {
            fixture.reopen();
            assert_eq!(
                fixture.contents(fixture.find(&format!("{path}/file")).unwrap()),
                "contents"
            );
        }
        let settled = descriptor(place);
        assert_eq!(attribute(place), Some(settled), "both copies are brought in line");
        let places = DirDescriptor::parse(&settled).unwrap().places.unwrap();
        assert!(places.are_one(), "good for one place");
        // And it can be renamed again, to and fro.
        let (parent, name) = path.split_once('/').unwrap();
        let parent = fixture.find(parent).unwrap();
        fixture.rename((parent, name), (ROOT, "aside"), REPLACE).unwrap();
        fixture.rename((ROOT, "aside"), (parent, name), REPLACE).unwrap();
        assert_eq!(fixture.contents(fixture.find(&format!("{path}/file")).unwrap()), "contents");
    }
}

/// What was for both places is no pass for the old one after the rename is complete.
#[test]
fn a_renamed_directory_is_not_good_for_its_old_place() {
    let mut fixture = Fixture::new();
    let steps = rename(&fixture);
    fs::rename(&steps.new, &steps.old).unwrap();
    fixture.reopen();
    let ino = fixture.find("a/old").unwrap();
    let made = fixture.file(ino, "new", "");
    assert!(matches!(made, Err(VolumeError::Misplaced(_))), "{made:?}");
}

#[test]
fn exchanged_and_replaced_directories_belong_where_they_are() {
    let exchange = kmsfs::volume::RenameHow { no_replace: false, exchange: true, whiteout: false };
    let long = "long ".repeat(50);
    let mut fixture = Fixture::new();
    let a = fixture.mkdir(ROOT, "a").unwrap().ino;
    for (parent, name) in [(ROOT, "one"), (a, "two"), (a, "empty")] {
        let ino = fixture.mkdir(parent, name).unwrap().ino;
        if name != "empty" {
            fixture.file(ino, "file", name).unwrap();
        }
    }
    fixture.file(ROOT, "plain", "file").unwrap();
    fixture.rename((ROOT, "one"), (a, "two"), exchange).unwrap();
    fixture.rename((a, "two"), (a, "empty"), REPLACE).unwrap();
    fixture.rename((a, "empty"), (ROOT, &long), REPLACE).unwrap();
    fixture.rename((ROOT, &long), (ROOT, "plain"), exchange).unwrap();
    let into_itself = fixture.rename((ROOT, "a"), (a, "inside"), REPLACE);
    assert!(into_itself.is_err());
    for _ in 0..2 {
        assert_eq!(fixture.contents(fixture.find("plain/file").unwrap()), "one");
        assert_eq!(fixture.contents(fixture.find("one/file").unwrap()), "two");
        assert_eq!(fixture.contents(fixture.find(&long).unwrap()), "file");
        fixture.mkdir(fixture.find("a").unwrap(), "more").unwrap();
        fixture.volume().rmdir(fixture.find("a").unwrap(), b"more").unwrap();
        fixture.reopen();
    }
}

/// A lookup between the steps of a rename finds the directory usable, at one name or the other.
#[test]
fn lookups_during_renames_find_a_directory_that_can_be_used() {
    let fixture = Fixture::new();
    let dir = fixture.mkdir(ROOT, "a").unwrap().ino;
    fixture.file(dir, "file", "contents").unwrap();
    let volume = fixture.shared();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                fixture.rename((ROOT, "a"), (ROOT, "b"), REPLACE).unwrap();
                fixture.rename((ROOT, "b"), (ROOT, "a"), REPLACE).unwrap();
            }
            stop.store(true, std::sync::atomic::Ordering::Release);
        });
        for name in [b"a", b"b"] {
            let (volume, stop) = (&volume, &stop);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    let Some(found) = volume.lookup(ROOT, name).unwrap() else { continue };
                    match volume.lookup(found.ino, b"file") {
                        Ok(file) => assert!(file.is_some()),
                        Err(VolumeError::Stale) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(fixture.contents(fixture.find("a/file").unwrap()), "contents");
}
