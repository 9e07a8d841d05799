//! A vault whose filesystem is full can be mounted, so that something can be removed.

use std::path::PathBuf;

use kmsfs::volume::attr::AttrChange;
use kmsfs::volume::backing::Durability;
use kmsfs::volume::content::{Access, Reserve};
use kmsfs::volume::{Allocate, FileHandle, Options, Origin, PageJournaling, Result, VolumeError};
use rustix::io::Errno;

use crate::disks::Disk;
use crate::fixture::{ROOT, caller};
use crate::journaled::journals;
use crate::sessions::{pattern, read, write};

#[test]
fn regression_a_vault_on_a_full_disk_mounts_and_makes_room() {
    for kind in ["ext4", "xfs", "btrfs"] {
        for crash in [false, true] {
            let Some(mut disk) = Disk::new(kind) else { return };
            let long = "n".repeat(200);
            disk.fixture.file(ROOT, &long, "contents").unwrap();
            let dir = disk.fixture.mkdir(ROOT, "dir").unwrap().ino;
            disk.fixture.file(dir, "inside", "contents").unwrap();
            let ino = disk.fixture.file(ROOT, "big", "").unwrap().ino;
            let handle = disk.fixture.volume().open_handle(ino, Access::ReadWrite).unwrap().handle;
            handle.file.write(0, &vec![7; 8 << 20], Origin::Caller).unwrap();
            disk.fixture.volume().close(handle);
            if crash {
                disk.fixture.close();
            } else {
                disk.fixture.volume().end().unwrap();
            }
            disk.fill();
            disk.fixture.reopen_with(Options::default());
            let volume = disk.fixture.shared();
            let dir = disk.fixture.find("dir").unwrap();
            assert_eq!(disk.fixture.contents(disk.fixture.find(&long).unwrap()), "contents");
            volume.unlink(dir, b"inside").unwrap();
            volume.rmdir(ROOT, b"dir").unwrap();
            volume.unlink(ROOT, long.as_bytes()).unwrap();
            volume.unlink(ROOT, b"big").unwrap();
            volume.end().unwrap();
            drop(volume);
            disk.fixture.reopen();
            assert!(disk.fixture.list(ROOT).is_empty(), "{kind}");
        }
    }
}

/// A session whose journal could not be made wrote over pages without one.
#[test]
fn regression_no_page_is_written_over_until_its_journal_can_be_made() {
    let Some(mut disk) = Disk::new("ext4") else { return };
    disk.fixture.file(ROOT, "file", "").unwrap();
    write(&disk.fixture, "file", 0, &pattern(20_000, 1)).unwrap();
    disk.fixture.file(ROOT, "other", "contents").unwrap();
    disk.fixture.volume().end().unwrap();
    disk.fixture.close();
    disk.use_up_inodes();
    disk.fixture.reopen_with(Options { page_journal: PageJournaling::On, ..Options::default() });
    assert_eq!(journals(&disk.fixture), Vec::<PathBuf>::new());
    let refused = write(&disk.fixture, "file", 4096, &pattern(4096, 2));
    assert!(
        matches!(refused, Err(VolumeError::Io(Errno::NOSPC))),
        "written over without a journal: {refused:?}"
    );
    disk.fixture.volume().unlink(ROOT, b"other").unwrap();
    assert!(read(&disk.fixture, "file").unwrap() == pattern(20_000, 1));
    disk.free_inodes();
    write(&disk.fixture, "file", 4096, &pattern(4096, 2)).unwrap();
    assert_eq!(journals(&disk.fixture).len(), 1, "made when it was needed");
    disk.fixture.volume().end().unwrap();
    assert!(journals(&disk.fixture).is_empty());
}

/// A cut was refused for want of room, and had taken place: by the old size, which the kernel went on
/// by, the next append had zeros before it that nobody wrote.
#[test]
fn regression_a_size_that_the_kernel_was_not_told_is_none() {
    let cases: [(&str, usize, u64); 5] = [
        ("cut", 4096, 3029),
        ("cut", 20_000, 7000),
        ("cut", 400_000, 4096),
        ("grow", 100, 3_000_000),
        ("reserve", 3000, 3_000_000),
    ];
    let Some(mut disk) = Disk::new("ext4") else { return };
    for (number, (how, before, after)) in cases.into_iter().enumerate() {
        let name = number.to_string();
        let ino = disk.fixture.file(ROOT, &name, "").unwrap().ino;
        let volume = disk.fixture.shared();
        let handle = volume.open_handle(ino, Access::ReadWrite).unwrap().handle;
        handle.file.write(0, &vec![7; before], Origin::Caller).unwrap();
        volume.sync_file(&handle, Durability::Everything).unwrap();
        disk.fill();
        let resize = |handle: &FileHandle| -> Result<()> {
            if how == "reserve" {
                return volume.allocate(handle, Allocate::Reserve(Reserve::Grow), 0, after);
            }
            let change = AttrChange { size: Some(after), ..Default::default() };
            volume.set_attr(ino, &change, caller()).map(drop)
        };
        let known = if resize(&handle).is_ok() { after } else { before as u64 };
        disk.make_room();
        handle.file.write(known, b"APPENDED", Origin::Caller).unwrap();
        volume.sync_file(&handle, Durability::Everything).unwrap();
        volume.close(handle);
        drop(volume);
        disk.fixture.reopen();
        let opened =
            disk.fixture.volume().open_handle(disk.fixture.find(&name).unwrap(), Access::ReadOnly);
        let handle = opened.unwrap().handle;
        let mut found = vec![0; usize::try_from(handle.file.size()).unwrap()];
        handle.file.read(0, &mut found).unwrap();
        disk.fixture.volume().close(handle);
        let mut expected = vec![7; before];
        expected.resize(usize::try_from(known).unwrap(), 0);
        expected.extend(b"APPENDED");
        assert!(found == expected, "{how} {before} {after}: {} bytes", found.len());
    }
}

/// The kernel went on showing what it had cached, and what came after the next drop of it was zeros.
#[test]
fn regression_pages_of_a_hole_that_was_made_in_part_are_not_shown() {
    let Some(disk) = Disk::new("ext4") else { return };
    let kernel = disk.fixture.kernel();
    let ino = disk.fixture.file(ROOT, "file", "").unwrap().ino;
    let volume = disk.fixture.shared();
    let handle = volume.open_handle(ino, Access::ReadWrite).unwrap().handle;
    handle.file.write(0, &vec![7; 400_000], Origin::Caller).unwrap();
    volume.sync_file(&handle, Durability::Everything).unwrap();
    disk.fill();
    for how in [Allocate::Punch, Allocate::Zero(Reserve::KeepSize)] {
        kernel.take();
        let done = volume.allocate(&handle, how, 3000, 300_000);
        assert!(done.is_err(), "{how:?}: there was room");
        volume.drop_outdated_pages();
        assert_eq!(kernel.take(), [ino], "{how:?}");
    }
    disk.make_room();
    volume.close(handle);
}
