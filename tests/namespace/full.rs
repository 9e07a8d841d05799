//! A vault whose filesystem is full can be mounted, so that something can be removed.

use kmsfs::volume::content::Access;
use kmsfs::volume::{Options, Origin};

use crate::disks::Disk;
use crate::fixture::ROOT;

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
