//! What a power cut leaves of names and link targets, on filesystems of their own.
//!
//! The filesystem has committed what it knows of names just before the cut, as it does now and then
//! by itself, and has written no contents that nobody synced.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use kmsfs::envelope::CrossMode;
use kmsfs::keystore::KeyRef;
use kmsfs::volume::attr::{AttrChange, NewTime, Timestamp};
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::Access;
use kmsfs::volume::{
    Needed, OpenFor, Origin, References, Repair, RewrapJob, VolumeError, open_root,
};

use crate::disks::Disk;
use crate::fixture::{REPLACE, ROOT, caller, new_node, once_unlocked};

const KINDS: [&str; 2] = ["ext4", "xfs"];

/// Once, the file that holds a long name was there and empty, and stayed so for ever.
#[test]
fn regression_long_names_survive_a_commit_of_the_backing_filesystem() {
    for kind in KINDS {
        let Some(mut disk) = Disk::new(kind) else { return };
        let long = |letter: char| letter.to_string().repeat(200);
        disk.fixture.file(ROOT, "moved", "old").unwrap();
        let linked = disk.fixture.file(ROOT, "linked", "old").unwrap().ino;
        disk.fixture.mkdir(ROOT, "dir").unwrap();
        disk.commit();
        disk.fixture.file(ROOT, &long('c'), "").unwrap();
        disk.fixture.rename((ROOT, "moved"), (ROOT, &long('m')), REPLACE).unwrap();
        disk.fixture.volume().link(linked, ROOT, long('l').as_bytes()).unwrap();
        disk.fixture.mkdir(ROOT, &long('d')).unwrap();
        disk.fixture.rename((ROOT, "dir"), (ROOT, &long('r')), REPLACE).unwrap();
        disk.fixture.volume().symlink(ROOT, long('s').as_bytes(), b"target", caller()).unwrap();
        disk.commit();
        disk.cut();
        let mut expected = vec!["linked".to_owned()];
        expected.extend("cmldrs".chars().map(long));
        expected.sort();
        assert_eq!(disk.fixture.list(ROOT), expected, "{kind}");
        let dir = disk.fixture.find(&long('d')).unwrap();
        disk.fixture.file(dir, "inside", "works").unwrap();
    }
}

#[test]
fn long_link_targets_survive_a_commit_of_the_backing_filesystem() {
    for kind in KINDS {
        let Some(mut disk) = Disk::new(kind) else { return };
        let lengths = [700, 800, 3000, 3055, 3056, 4095];
        for length in lengths {
            let (name, target) = (length.to_string(), vec![b'x'; length]);
            disk.fixture.volume().symlink(ROOT, name.as_bytes(), &target, caller()).unwrap();
        }
        disk.commit();
        disk.cut();
        for length in lengths {
            let ino = disk.fixture.find(&length.to_string()).unwrap();
            let target = disk.fixture.volume().read_link(ino).unwrap();
            assert_eq!(target, vec![b'x'; length], "{kind}");
            assert_eq!(disk.fixture.volume().attr(ino).unwrap().size, length as u64, "{kind}");
        }
    }
}

/// The file was in its new directory, and the directory had forgotten that it accepts the key.
#[test]
fn regression_a_key_is_accepted_durably_before_a_file_with_it_moves_in() {
    for kind in ["ext4", "xfs", "btrfs"] {
        let Some(mut disk) = Disk::new(kind) else { return };
        let other = disk.fixture.new_key();
        let keeps = disk.fixture.mkdir(ROOT, "keeps").unwrap().ino;
        disk.fixture.volume().set_dir_policy(keeps, other, Some(CrossMode::Keep)).unwrap();
        let moved = disk.fixture.file(ROOT, "a", "contents").unwrap().ino;
        disk.fixture.volume().end().unwrap();
        disk.fixture.rename((ROOT, "a"), (keeps, "a"), REPLACE).unwrap();
        let handle = disk.fixture.volume().open_handle(moved, Access::ReadOnly).unwrap().handle;
        handle.file.sync(Durability::Everything).unwrap();
        disk.fixture.volume().close(handle);
        disk.cut();
        let found = disk.fixture.find("keeps/a").or_else(|_| disk.fixture.find("a")).unwrap();
        assert_eq!(disk.fixture.contents(found), "contents", "{kind}");
    }
}

/// The file of a target is gone only once the last name of its link is gone for good.
#[test]
fn a_link_that_comes_back_after_a_cut_has_its_target() {
    for kind in KINDS {
        let Some(mut disk) = Disk::new(kind) else { return };
        disk.fixture.volume().symlink(ROOT, b"l", &[b'x'; 4000], caller()).unwrap();
        disk.commit();
        disk.fixture.volume().unlink(ROOT, b"l").unwrap();
        disk.cut();
        let found = disk.fixture.find("l");
        match found {
            Ok(ino) => assert_eq!(disk.fixture.volume().read_link(ino).unwrap().len(), 4000),
            Err(error) => assert!(matches!(error, VolumeError::NotFound), "{kind}: {error:?}"),
        }
        let links = fs::read_dir(disk.fixture.vault().join(".kmsfs/links")).unwrap();
        assert!(links.count() <= 1);
    }
}

/// Nothing needed the old material any more, but on the disk everything still did: it was destroyed,
/// and what the power cut brought back was lost for good.
#[test]
fn regression_what_a_power_cut_brings_back_is_counted_as_needed() {
    for (kind, mounted) in [("ext4", true), ("ext4", false), ("xfs", true), ("xfs", false)] {
        let Some(mut disk) = Disk::new(kind) else { return };
        let dir = disk.fixture.mkdir(ROOT, "dir").unwrap().ino;
        disk.fixture.mkdir(dir, "below").unwrap();
        disk.fixture.file(ROOT, "file", "old").unwrap();
        disk.fixture.volume().flush(Duration::ZERO).unwrap();
        let keystore = disk.fixture.keystore.clone();
        let (key, now) = (disk.fixture.key(), SystemTime::now());
        let old = keystore.current_material(key).unwrap();
        keystore.rotate_key_on_demand(&KeyRef::Id(key), now).unwrap();
        // The old header goes by a rename that nobody syncs.
        disk.fixture.file(ROOT, "new", "new").unwrap();
        disk.fixture.rename((ROOT, "new"), (ROOT, "file"), REPLACE).unwrap();
        let job = RewrapJob { from: Some(key), ..RewrapJob::default() };
        let mut go_on = |_: &_| ControlFlow::Continue(());
        assert!(disk.fixture.volume().rewrap(job, &mut go_on, &mut |_| {}).unwrap().complete);
        let needed = |found: &References| {
            let Needed { files, directories } = found.of_material(old);
            files + directories
        };
        let found = if mounted {
            disk.fixture.volume().references(&mut |_| ControlFlow::Continue(())).unwrap()
        } else {
            disk.fixture.close();
            let vault = disk.fixture.vault();
            let scan = || References::scan_still(&open_root(&vault)?, &vault);
            once_unlocked(scan).unwrap().1
        };
        assert_eq!(needed(&found), 0, "{kind}");
        disk.cut();
        let (_, found) = References::scan(&disk.fixture.vault()).unwrap();
        assert_eq!(needed(&found), 0, "{kind}, mounted: {mounted}");
    }
}

/// The time had moved, a commit of somebody else took it to the disk, and the record of the one to show
/// was not there yet.
#[test]
fn regression_a_rewrap_that_a_cut_ends_shows_the_times_from_before() {
    let old = Timestamp { secs: 1_000_000_000, nanos: 123_456_789 };
    for kind in KINDS {
        let Some(mut disk) = Disk::new(kind) else { return };
        let dir = disk.fixture.mkdir(ROOT, "dir").unwrap().ino;
        let other = disk.fixture.new_key();
        disk.fixture.volume().set_dir_policy(dir, other, Some(CrossMode::Rewrap)).unwrap();
        let ino = disk.fixture.file(ROOT, "f", "contents").unwrap().ino;
        let change = AttrChange { mtime: Some(NewTime::At(old)), ..AttrChange::default() };
        disk.fixture.volume().set_attr(ino, &change, caller()).unwrap();
        let rewrap = |disk: &Disk, changed: &mut dyn FnMut(&Path)| {
            let key = KeyRef::Id(disk.fixture.key());
            disk.fixture.keystore.rotate_key_on_demand(&key, SystemTime::now()).unwrap();
            let mut go_on = |_: &_| ControlFlow::Continue(());
            let job = RewrapJob::default();
            assert!(disk.fixture.volume().rewrap(job, &mut go_on, changed).unwrap().complete);
        };
        // The list of shown times is there, and the next record comes behind the others.
        rewrap(&disk, &mut |_| {});
        disk.fixture.volume().end().unwrap();
        let shown = |disk: &Disk| {
            let ino = disk.fixture.find("f").or_else(|_| disk.fixture.find("dir/f")).unwrap();
            disk.fixture.volume().attr(ino).unwrap().mtime
        };
        rewrap(&disk, &mut |_| {
            disk.commit();
            disk.remember();
        });
        disk.go_back();
        assert_eq!(shown(&disk), old, "{kind}: in the middle of a batch");
        let dir = disk.fixture.find("dir").unwrap();
        disk.fixture.rename((ROOT, "f"), (dir, "f"), REPLACE).unwrap();
        disk.commit();
        disk.cut();
        assert_eq!(shown(&disk), old, "{kind}: after a rename to a directory of another key");
    }
}

/// With data=writeback, ext4 gives the blocks of a removed file away before its removal is durable. If a
/// cut brings the file back, it has somebody else's bytes, also if it was synced.
#[test]
fn foreign_bytes_in_a_file_that_comes_back_are_an_error() {
    let options = "loop,data=writeback,commit=300";
    let Some(mut disk) = Disk::with("ext4", options, 64) else { return };
    let contents = "x".repeat(4 << 20);
    for name in ["stays", "removed"] {
        disk.fixture.file(ROOT, name, &contents).unwrap();
    }
    disk.fixture.volume().end().unwrap();
    disk.fixture.reopen();
    disk.fixture.volume().unlink(ROOT, b"removed").unwrap();
    disk.write_to_free_blocks();
    disk.cut();
    let stays = disk.fixture.find("stays").unwrap();
    assert_eq!(disk.fixture.contents(stays), contents[..4096]);
    let back = disk.fixture.find("removed").unwrap();
    let volume = disk.fixture.volume();
    let read = volume.open_handle(back, Access::ReadOnly).and_then(|opened| {
        let mut found = vec![0; contents.len()];
        let read = opened.handle.file.read(0, &mut found);
        volume.close(opened.handle);
        read
    });
    assert!(matches!(read, Err(VolumeError::Tampered(_))), "{read:?}");
    let report = volume.check(Repair::No, &mut |_| ControlFlow::Continue(())).unwrap();
    assert!(!report.is_clean() && report.problems.len() == 1, "{report:?}");
    volume.unlink(ROOT, b"removed").unwrap();
}

/// btrfs: somebody else's commit fell between the making of a directory and its rename, and a sync of a
/// file in it took the file along, but not the name of the directory.
#[test]
fn regression_a_synced_file_in_a_new_directory_is_there_whenever_others_commit() {
    let Some(mut disk) = Disk::new("btrfs") else { return };
    for attempt in 0..200_u64 {
        let (root, stop) = (fs::File::open(disk.fixture.vault()).unwrap(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    fs::write(disk.fixture.vault().join("../noise"), attempt.to_string()).unwrap();
                    rustix::fs::syncfs(&root).unwrap();
                    thread::sleep(Duration::from_micros(attempt * 10));
                }
            });
            let volume = disk.fixture.volume();
            let dir = disk.fixture.mkdir(ROOT, &attempt.to_string()).unwrap().ino;
            let new = new_node(0o600);
            let (_, handle) = volume.create_file(dir, b"file", &new, OpenFor::Both).unwrap();
            handle.file.write(0, b"contents", Origin::Caller).unwrap();
            volume.sync_file(&handle, Durability::Everything).unwrap();
            stop.store(true, Ordering::Relaxed);
            volume.close(handle);
        });
        drop(root);
        disk.cut();
        let file = disk.fixture.find(&format!("{attempt}/file")).unwrap();
        assert_eq!(disk.fixture.contents(file), "contents");
    }
}
