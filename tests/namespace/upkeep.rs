//! What the volume does by itself, while some of its files cannot be written.

use std::os::fd::AsFd;
use std::time::Duration;

use kmsfs::volume::content::Access;
use kmsfs::volume::{FilePolicy, Origin};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::fixture::{Fixture, ROOT};

/// A number that no file of the vault has.
const SICK: u64 = u64::MAX;

#[test]
fn a_file_whose_sync_fails_keeps_no_other_from_its_turn() {
    let fixture = Fixture::new();
    let volume = fixture.volume();
    let policy = FilePolicy::new(fixture.key(), &[]);
    let memory = memfd_create("sick", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC).unwrap();
    let seal = memory.try_clone().unwrap();
    let sick = volume.files().adopt(SICK, memory, &policy).unwrap();
    sick.write(0, &[1; 9000], Origin::Caller).unwrap();
    fcntl_add_seals(seal.as_fd(), SealFlags::WRITE).unwrap();
    // What was tried may have arrived, for all that is known: it is owed to the next sync.
    sick.write(0, &[2; 9000], Origin::Caller).unwrap_err();
    let healthy: Vec<_> = (0..6)
        .map(|number| {
            let attr = fixture.file(ROOT, &format!("file {number}"), "").unwrap();
            let opened = volume.open_handle(attr.ino, Access::ReadWrite).unwrap();
            opened.handle.file.write(0, b"contents", Origin::Caller).unwrap();
            opened.handle
        })
        .collect();
    volume.flush(Duration::ZERO).unwrap_err();
    for handle in &healthy {
        assert!(!handle.file.for_caller().unwrap().is_dirty(), "inode {}", handle.ino);
    }
    assert!(sick.for_caller().unwrap().is_dirty(), "it is tried again");
    for handle in healthy {
        volume.close(handle);
    }
}
