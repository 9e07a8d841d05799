//! A disk that cannot keep what it was given: ext4 in a file of a tmpfs that is full.
//!
//! The kernel writes pages back, is refused, keeps them in memory as if it had, and says so once to
//! each descriptor. Whoever of the daemon meets that must leave it for the handles.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::Access;
use kmsfs::volume::{FileHandle, Origin, Volume, VolumeError};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;

use crate::fixture::{Fixture, REPLACE, ROOT, scratch};

/// Few enough that the filesystem needs no new block to find them by.
const MUCH: usize = 100_000;

struct SickDisk(PathBuf);

impl SickDisk {
    fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts: run it as root");
        let disk = Self(scratch());
        // The journal and the tables have room of their own: only contents find none.
        disk.run(
            "mkdir memory disk
             mount -t tmpfs -o size=160M kmsfs-test memory
             truncate -s 64M memory/sparse
             mkfs.ext4 -q -F -b 4096 -E nodiscard,lazy_itable_init=0 memory/sparse
             cat memory/sparse > memory/image
             rm memory/sparse
             mount -o remount,size=80M memory
             mount -o loop memory/image disk",
        );
        disk
    }

    fn vault(&self) -> PathBuf {
        self.0.join("disk/vault")
    }

    /// From here on nothing new can be kept.
    fn fall_ill(&self) {
        self.run("sync -f disk; fstrim disk; cat /dev/zero > memory/fill 2>/dev/null || true");
    }

    fn recover(&self) {
        fs::remove_file(self.0.join("memory/fill")).unwrap();
    }

    /// The kernel writes back what it has, and meets the failure.
    fn write_back(&self) {
        self.run("sync -f disk 2>/dev/null || true");
    }

    /// From here on it is read-only, as after an error of its journal.
    fn abort(&self) {
        self.run("mount -o remount,abort disk");
    }

    /// From here on it answers nothing but EIO.
    fn vanish(&self) {
        let going_down = "import fcntl, os, struct\n\
             fcntl.ioctl(os.open('disk', os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        self.run(&format!("python3 -c \"{going_down}\""));
    }

    fn run(&self, script: &str) {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(&self.0).env("PATH", path + ":/usr/sbin:/sbin");
        assert!(shell.status().unwrap().success(), "{script}");
    }
}

impl Drop for SickDisk {
    fn drop(&mut self) {
        self.run("umount disk || true; umount memory || true");
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(volume: &Volume, ino: u64) -> FileHandle {
    volume.open_handle(ino, Access::ReadWrite).unwrap().handle
}

/// What fsync(2) answers to a handle, twice.
fn fsync_twice(volume: &Volume, handle: &FileHandle) -> [bool; 2] {
    [(); 2].map(|()| match volume.sync_file(handle, Durability::Everything) {
        Ok(()) => true,
        Err(VolumeError::Io(_)) => false,
        Err(other) => panic!("{other}"),
    })
}

const TOLD_ONCE: [bool; 2] = [false, true];
const WELL: [bool; 2] = [true, true];

/// The bytes of a file as they are on the disk, and not in the memory of the kernel.
fn on_disk(handle: &FileHandle) -> Vec<u8> {
    fadvise(handle.file.backing_fd(), 0, None, Advice::DontNeed).unwrap();
    let mut bytes = vec![0; MUCH];
    assert_eq!(handle.file.read(0, &mut bytes).unwrap(), MUCH);
    bytes
}

#[test]
fn regression_what_the_background_sync_meets_every_open_handle_learns_once() {
    // One by one, and by a sync of the whole filesystem.
    for dirty in [1, 12] {
        met_in_the_background(dirty);
    }
}

/// `dirty` files beside the one that is hit have changes that the disk can keep.
fn met_in_the_background(dirty: usize) {
    let disk = SickDisk::new();
    let fixture = Fixture::at(disk.vault());
    let volume = fixture.volume();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    let handles = [open(volume, ino), open(volume, ino)];
    let neighbours: Vec<_> = (0..dirty)
        .map(|number| fixture.file(ROOT, &format!("neighbour {number}"), "small").unwrap().ino)
        .map(|ino| open(volume, ino))
        .collect();
    volume.flush(Duration::ZERO).unwrap();
    disk.fall_ill();
    let bytes = vec![7; MUCH];
    assert_eq!(handles[0].file.write(0, &bytes, Origin::Caller).unwrap(), MUCH);
    for neighbour in &neighbours {
        neighbour.file.write(0, b"other", Origin::Caller).unwrap();
    }
    disk.write_back();
    volume.flush(Duration::ZERO).unwrap_err();
    disk.recover();
    assert_eq!(fsync_twice(volume, &handles[0]), TOLD_ONCE);
    for neighbour in &neighbours {
        assert_eq!(fsync_twice(volume, neighbour), WELL, "it has nothing to do with it");
    }
    let late = open(volume, ino);
    assert_eq!(fsync_twice(volume, &handles[1]), TOLD_ONCE);
    assert_eq!(fsync_twice(volume, &late), WELL, "somebody was told before it was opened");
    assert!(on_disk(&late) == bytes, "written again after the failure");
    for handle in handles.into_iter().chain([late]).chain(neighbours) {
        volume.close(handle);
    }
}

/// The file was closed when the daemon met it, with a descriptor that it opened for that.
#[test]
fn regression_a_failure_while_nobody_has_the_file_open_waits_for_who_opens_it() {
    let disk = SickDisk::new();
    let fixture = Fixture::at(disk.vault());
    let volume = fixture.volume();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    volume.flush(Duration::ZERO).unwrap();
    disk.fall_ill();
    let (handle, bytes) = (open(volume, ino), vec![7; MUCH]);
    assert_eq!(handle.file.write(0, &bytes, Origin::Caller).unwrap(), MUCH);
    volume.close(handle);
    fixture.wait_for_idle_files();
    disk.write_back();
    volume.flush(Duration::ZERO).unwrap_err();
    disk.recover();
    volume.flush(Duration::ZERO).expect_err("the second attempt was met as well");
    volume.flush(Duration::ZERO).unwrap();
    let handles = [open(volume, ino), open(volume, ino)];
    for handle in &handles {
        assert_eq!(fsync_twice(volume, handle), TOLD_ONCE);
    }
    let late = open(volume, ino);
    assert_eq!(fsync_twice(volume, &late), WELL);
    assert!(on_disk(&late) == bytes, "written again after the failure");
    for handle in handles.into_iter().chain([late]) {
        volume.close(handle);
    }
}

/// What a file owes cannot be written through a descriptor for reading: the answer was EBADF.
#[test]
fn regression_a_file_that_owes_something_to_a_disk_gone_read_only_says_so() {
    let disk = SickDisk::new();
    let fixture = Fixture::at(disk.vault());
    let volume = fixture.volume();
    let ino = fixture.file(ROOT, "file", "").unwrap().ino;
    volume.flush(Duration::ZERO).unwrap();
    disk.fall_ill();
    let handle = open(volume, ino);
    assert_eq!(handle.file.write(0, &vec![7; MUCH], Origin::Caller).unwrap(), MUCH);
    volume.close(handle);
    disk.write_back();
    volume.flush(Duration::ZERO).unwrap_err();
    disk.abort();
    let handle = open(volume, ino);
    for _ in 0..3 {
        match volume.sync_file(&handle, Durability::Contents) {
            Err(VolumeError::ReadOnly | VolumeError::Io(Errno::ROFS | Errno::NOSPC)) => {}
            other => panic!("{other:?}"),
        }
    }
    volume.close(handle);
}

/// A descriptor that cannot be read now is not one that is damaged (EBADMSG).
#[test]
fn regression_a_disk_that_is_gone_is_no_damage_of_a_directory() {
    let disk = SickDisk::new();
    let mut fixture = Fixture::at(disk.vault());
    let dir = fixture.mkdir(ROOT, "dir").unwrap().ino;
    fixture.file(dir, "file", "contents").unwrap();
    fixture.reopen();
    let dir = fixture.find("dir").unwrap();
    disk.vanish();
    let answers = [
        fixture.rename((ROOT, "dir"), (ROOT, "other"), REPLACE),
        fixture.file(dir, "new", "").map(drop),
        fixture.volume().sync_dir(dir, Durability::Everything),
    ];
    for answer in answers {
        assert!(matches!(answer, Err(VolumeError::Io(Errno::IO))), "{answer:?}");
    }
}
