//! What is above a directory decides what it comes to: none that is held open outlives a change there.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use kmsfs::envelope::CrossMode;
use kmsfs::id::KeyId;
use kmsfs::volume::content::Access;
use kmsfs::volume::{Detail, Misplaced, RenameHow, RewrapJob, Sink, VolumeError};

use crate::fixture::{Fixture, REPLACE, ROOT};

const EXCHANGE: RenameHow = RenameHow { no_replace: false, exchange: true, whiteout: false };

fn rewrap(fixture: &Fixture) {
    let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
    let report = fixture.volume().rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
    assert!(report.complete && report.failed.is_empty(), "{report:?}");
}

/// The backing path of an inode.
fn by_inode(fixture: &Fixture, ino: u64) -> PathBuf {
    let all = fixture.backing(|_| true);
    all.into_iter().find(|path| path.symlink_metadata().unwrap().ino() == ino).unwrap()
}

/// `/top/a/b/c`, each with a file `x`, all of them held open.
fn deep(fixture: &Fixture) {
    let mut above = ROOT;
    for name in ["top", "a", "b", "c"] {
        above = fixture.mkdir(above, name).unwrap().ino;
        fixture.file(above, "x", "old").unwrap();
    }
}

const BELOW: [&str; 3] = ["top/a", "top/a/b", "top/a/b/c"];

/// The former key was still accepted in what was held open of the directories below: so nothing was
/// written, and after the next mount nothing accepted it.
#[test]
fn regression_a_file_that_keeps_its_key_opens_after_a_rewrap_and_a_mount() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    deep(&fixture);
    let top = fixture.find("top").unwrap();
    fixture.volume().set_dir_policy(top, key, Some(CrossMode::Keep)).unwrap();
    rewrap(&fixture);
    for path in BELOW {
        let there = fixture.find(path).unwrap();
        fixture.file(ROOT, "f", "precious").unwrap();
        fixture.rename((ROOT, "f"), (there, "f"), REPLACE).unwrap();
        fixture.file(ROOT, "g", "as precious").unwrap();
        fixture.rename((ROOT, "g"), (there, "x"), EXCHANGE).unwrap();
        fixture.volume().unlink(ROOT, b"g").unwrap();
    }
    for _ in 0..2 {
        for path in BELOW {
            let find = |name: &str| fixture.find(&format!("{path}/{name}")).unwrap();
            assert_eq!(fixture.contents(find("f")), "precious", "{path}");
            assert_eq!(fixture.contents(find("x")), "as precious", "{path}");
        }
        fixture.reopen();
    }
}

/// The same where one in between has a policy of its own, under which the next one keeps keys too.
#[test]
fn regression_a_file_that_keeps_its_key_opens_where_one_keeps_below_another() {
    let mut fixture = Fixture::new();
    let (outer, inner) = (fixture.new_key(), fixture.new_key());
    deep(&fixture);
    let find = |fixture: &Fixture, path: &str| fixture.find(path).unwrap();
    fixture.volume().set_dir_policy(find(&fixture, "top"), outer, Some(CrossMode::Keep)).unwrap();
    fixture
        .volume()
        .set_dir_policy(find(&fixture, "top/a/b"), inner, Some(CrossMode::Keep))
        .unwrap();
    rewrap(&fixture);
    // From all three keys into all directories, also back.
    for (from, name) in [("", "of_root"), ("top", "of_outer"), ("top/a/b", "of_inner")] {
        for path in ["", "top/a", "top/a/b/c"] {
            let (from, to) = (find(&fixture, from), find(&fixture, path));
            fixture.file(from, "moving", name).unwrap();
            fixture.rename((from, "moving"), (to, name), REPLACE).unwrap();
        }
        rewrap_nothing(&fixture);
    }
    fixture.reopen();
    for path in ["top/a", "top/a/b/c"] {
        for name in ["of_root", "of_outer", "of_inner"] {
            let ino = find(&fixture, &format!("{path}/{name}"));
            assert_eq!(fixture.contents(ino), name, "{path}");
        }
    }
}

/// Another policy at the root, the same key: every directory below is looked at again.
fn rewrap_nothing(fixture: &Fixture) {
    let mode = fixture.volume().dir_policy(ROOT).unwrap().cross;
    fixture.volume().set_dir_policy(ROOT, fixture.key(), Some(mode)).unwrap();
}

/// Between the directory above and its own one, that is: what the one above gives up, it takes over.
#[test]
fn a_file_that_comes_in_while_a_rewrap_ends_opens_after_a_mount() {
    let mut fixture = Fixture::new();
    let key = fixture.new_key();
    deep(&fixture);
    let top = fixture.find("top").unwrap();
    fixture.volume().set_dir_policy(top, key, Some(CrossMode::Keep)).unwrap();
    let (volume, ended) = (fixture.shared(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let go_on = &mut |_: &_| std::ops::ControlFlow::Continue(());
            while !ended.load(Ordering::Relaxed) {
                volume.rewrap(RewrapJob::default(), go_on, &mut |_| {}).unwrap();
            }
        });
        for number in 0..FILES {
            let there = fixture.find(BELOW[number % 3]).unwrap();
            let name = format!("f{number}");
            fixture.file(ROOT, &name, &name).unwrap();
            fixture.rename((ROOT, &name), (there, &name), REPLACE).unwrap();
        }
        ended.store(true, Ordering::Relaxed);
    });
    drop(volume);
    fixture.reopen();
    for number in 0..FILES {
        let name = format!("f{number}");
        let ino = fixture.find(&format!("{}/{name}", BELOW[number % 3])).unwrap();
        assert_eq!(fixture.contents(ino), name);
    }
}

const FILES: usize = 60;

/// A header from before was served to users of the key that was given up, until the next mount.
#[test]
fn regression_a_former_key_ends_with_the_rewrap_for_what_is_held_open() {
    for cross in [CrossMode::Rewrap, CrossMode::Keep] {
        let fixture = Fixture::new();
        let key = fixture.new_key();
        deep(&fixture);
        let files = BELOW.map(|path| fixture.find(&format!("{path}/x")).unwrap());
        let saved = files.map(|ino| fs::read(by_inode(&fixture, ino)).unwrap()[..4096].to_vec());
        fixture.volume().set_dir_policy(fixture.find("top").unwrap(), key, Some(cross)).unwrap();
        // They are opened between the change of policy and its end, and one stays a listing.
        let streams = BELOW.map(|path| {
            fixture.file(fixture.find(path).unwrap(), "y", "new").unwrap();
            fixture.volume().open_dir_stream(fixture.find(path).unwrap()).unwrap()
        });
        rewrap(&fixture);
        for (ino, old) in files.iter().zip(&saved) {
            let file = fs::File::options().write(true).open(by_inode(&fixture, *ino)).unwrap();
            // The slots; what is behind them is of the same file key.
            file.write_all_at(&old[..1024], 0).unwrap();
        }
        for path in BELOW {
            let policy = fixture.volume().dir_policy(fixture.find(path).unwrap()).unwrap();
            assert!(policy.policy == key && policy.previous.is_empty(), "{path}: {policy:?}");
        }
        for ino in files {
            let opened = fixture.volume().open_handle(ino, Access::ReadOnly);
            assert!(matches!(opened, Err(VolumeError::ForeignKey { .. })), "{:?}", opened.err());
        }
        for stream in &streams {
            let mut seen = 0;
            let count = |_: &_| {
                seen += 1;
                Sink::Taken
            };
            fixture.volume().read_dir(stream, 0, Detail::Attributes, count).unwrap();
            assert!(seen >= 4);
        }
    }
}

/// A name more is under the same keys, and is found below a directory that was held open.
#[test]
fn regression_a_further_name_counts_after_a_rewrap_as_the_first_one() {
    let mut fixture = Fixture::new();
    let key: KeyId = fixture.new_key();
    deep(&fixture);
    fixture
        .volume()
        .set_dir_policy(fixture.find("top").unwrap(), key, Some(CrossMode::Keep))
        .unwrap();
    rewrap(&fixture);
    let file = fixture.file(ROOT, "f", "precious").unwrap().ino;
    let there = fixture.find("top/a/b").unwrap();
    let linked = fixture.volume().link(file, there, b"f");
    assert!(matches!(linked, Err(VolumeError::CrossPolicy)), "{linked:?}");
    fixture.rename((ROOT, "f"), (there, "f"), REPLACE).unwrap();
    // The other directory does not accept the key that it keeps.
    let other = fixture.find("top/a").unwrap();
    let linked = fixture.volume().link(file, other, b"f");
    assert!(matches!(linked, Err(VolumeError::CrossPolicy)), "{linked:?}");
    fixture.volume().link(file, there, b"g").unwrap();
    for _ in 0..2 {
        for name in ["top/a/b/f", "top/a/b/g"] {
            assert_eq!(fixture.contents(fixture.find(name).unwrap()), "precious");
        }
        fixture.reopen();
    }
}

/// What was verified below a directory counted on after that one had been found elsewhere.
#[test]
fn regression_what_is_below_a_directory_that_was_moved_outside_counts_no_more() {
    let fixture = Fixture::new();
    deep(&fixture);
    let elsewhere = fixture.mkdir(ROOT, "elsewhere").unwrap().ino;
    let below = fixture.find("top/a/b/c").unwrap();
    let moved = by_inode(&fixture, fixture.find("top/a").unwrap());
    fs::rename(moved, by_inode(&fixture, elsewhere).join("moved")).unwrap();
    fixture.find("elsewhere/kmsfs.foreign.moved").unwrap();
    match fixture.file(below, "new", "x") {
        Err(VolumeError::Misplaced(Misplaced::Above)) => {}
        other => panic!("it was used: {other:?}"),
    }
}
