//! A write-back that failed is told to every handle that was open, once, whoever met it first.

use std::sync::Arc;

use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::{Content, SealEffort};
use kmsfs::volume::{Heard, VolumeError};
use rustix::io::Errno;

use crate::disk::{Disk, Fault};
use crate::ops::{When, open};

/// A file of some blocks, synced, on a disk of its own.
fn synced(length: usize) -> (Arc<Disk>, Content) {
    let disk = Arc::new(Disk::default());
    let content = open(&disk, When::Cut).unwrap();
    content.write(0, &vec![1; length]).unwrap();
    content.sync(Durability::Contents).unwrap();
    (disk, content)
}

/// What fsync(2) on a handle answers.
fn fsync(content: &Content, heard: &Heard) -> Option<Errno> {
    let synced = content.sync(Durability::Everything);
    let told = content.errors().tell(heard);
    match synced.and(told.map_err(VolumeError::from)) {
        Ok(()) => None,
        Err(VolumeError::Io(error)) => Some(error),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn regression_a_background_sync_takes_no_error_from_a_handle() {
    let (disk, content) = synced(9000);
    let (one, other) = (content.errors().sample(), content.errors().sample());
    content.write(0, &[2; 9000]).unwrap();
    disk.fail(0, Fault::Io);
    content.sync(Durability::Contents).unwrap_err();
    assert_eq!([fsync(&content, &one), fsync(&content, &one)], [Some(Errno::IO), None]);
    let late = content.errors().sample();
    assert_eq!([fsync(&content, &other), fsync(&content, &other)], [Some(Errno::IO), None]);
    assert_eq!(fsync(&content, &late), None, "somebody had been told when it was opened");
}

#[test]
fn regression_one_handle_takes_no_error_from_another() {
    let (disk, content) = synced(9000);
    let (one, other) = (content.errors().sample(), content.errors().sample());
    content.write(0, &[2; 9000]).unwrap();
    disk.fail(0, Fault::Io);
    assert_eq!(fsync(&content, &one), Some(Errno::IO));
    assert_eq!([fsync(&content, &other), fsync(&content, &one)], [Some(Errno::IO), None]);
}

/// What a page must not be rewritten under gave the error of that page to whoever wrote next.
#[test]
fn regression_a_write_gets_no_error_of_an_earlier_one() {
    let (disk, content) = synced(9000);
    let handle = content.errors().sample();
    content.write(10, &[2; 20]).unwrap();
    disk.fail(0, Fault::Io);
    assert_eq!(content.write(40, &[3; 20]).unwrap(), 20);
    assert!(disk.failed());
    assert_eq!([fsync(&content, &handle), fsync(&content, &handle)], [Some(Errno::IO), None]);
}

/// A change that needs a sync in its midst met what was lost before, and nobody heard of it.
#[test]
fn regression_a_change_that_syncs_gets_no_error_of_an_earlier_write() {
    for call in 0..20 {
        let (disk, content) = synced(20_000);
        content.seal(SealEffort::Full).unwrap();
        content.sync(Durability::Contents).unwrap();
        let handle = content.errors().sample();
        content.write(10, &[2; 20]).unwrap();
        disk.fail_sync(call);
        content.truncate(5000).unwrap();
        if !disk.failed() {
            assert!(call > 0, "a cut below the seal syncs");
            return;
        }
        assert_eq!([fsync(&content, &handle), fsync(&content, &handle)], [Some(Errno::IO), None]);
    }
}

/// The second fsync said that all is well, and the pages that the first had lost were never written.
#[test]
fn regression_a_sync_after_a_failed_one_has_the_contents() {
    let (disk, content) = synced(200_000);
    let handle = content.errors().sample();
    content.write(5000, &vec![2; 150_000]).unwrap();
    disk.fail(0, Fault::Io);
    assert_eq!([fsync(&content, &handle), fsync(&content, &handle)], [Some(Errno::IO), None]);
    assert_eq!(disk.dropped(), 0, "pages that only memory has");
}

#[test]
fn what_nobody_was_told_of_outlives_the_last_close() {
    let (disk, content) = synced(9000);
    content.write(0, &[2; 9000]).unwrap();
    disk.fail(0, Fault::Io);
    content.sync(Durability::Contents).unwrap_err();
    let content = content.reopen().unwrap();
    let (one, other) = (content.errors().sample(), content.errors().sample());
    assert_eq!([fsync(&content, &one), fsync(&content, &other)], [Some(Errno::IO); 2]);
    let content = content.reopen().unwrap();
    assert_eq!(fsync(&content, &content.errors().sample()), None);
}

/// A sync goes on failing for as long as what it owes cannot be written.
#[test]
fn a_disk_that_stays_dead_is_never_synced() {
    let (disk, content) = synced(9000);
    content.write(0, &[2; 9000]).unwrap();
    let handle = content.errors().sample();
    disk.fail(0, Fault::Dead);
    for _ in 0..3 {
        assert_eq!(fsync(&content, &handle), Some(Errno::IO));
    }
    disk.heal();
    assert_eq!(fsync(&content, &handle), None);
}
