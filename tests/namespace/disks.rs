//! A filesystem of its own for a vault, and what a power cut leaves of it.
//!
//! The image of a mounted loop device has what the filesystem has written to its disk, and nothing
//! that is still in the system's cache. So a copy of it is what a power cut at that moment leaves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use kmsfs::volume::backing::{Backing, BackingFile};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::fixture::{Fixture, scratch};

/// A loop-mounted filesystem with a vault in it, and its keystore elsewhere.
pub(crate) struct Disk {
    pub(crate) fixture: Fixture,
    dir: PathBuf,
    options: &'static str,
}

impl Disk {
    /// A disk with a filesystem of this kind. `None`, and a word about it, where that takes more
    /// rights than we have.
    pub(crate) fn new(kind: &str) -> Option<Self> {
        Self::with(kind, "loop", 400)
    }

    /// The same with these options of mount(8), and this many megabytes.
    pub(crate) fn with(kind: &str, options: &'static str, megabytes: u64) -> Option<Self> {
        let base = scratch();
        let dir = base.join("disk");
        fs::create_dir(&dir).unwrap();
        let image = base.join("image");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let force = if kind == "ext4" { "-F" } else { "-f" };
        let made = Command::new(format!("mkfs.{kind}")).args(["-q", force]).arg(&image).status();
        assert!(made.unwrap().success(), "mkfs.{kind}");
        if !mount(&image, &dir, options) {
            eprintln!("no loop device here: nothing is tried on {kind}");
            fs::remove_dir_all(&base).unwrap();
            return None;
        }
        let vault = dir.join("vault");
        Some(Self { fixture: Fixture::at(vault), dir, options })
    }

    /// The filesystem commits what it knows, as it does every few seconds by itself: names and sizes,
    /// but no contents that nobody has synced.
    pub(crate) fn commit(&self) {
        File::create(self.dir.join("other")).unwrap().sync_all().unwrap();
    }

    /// Leaves no room for anything.
    pub(crate) fn fill(&self) {
        let file = File::create(self.dir.join("filler")).unwrap();
        let (mut at, mut length) = (0, 64 << 20);
        while length >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), at, length) {
                Ok(()) => at += length,
                Err(error) => {
                    assert_eq!(error, Errno::NOSPC);
                    length /= 2;
                }
            }
        }
        file.sync_all().unwrap();
    }

    /// Somebody else writes to most blocks that are free, which takes the bytes to the disk, and nobody
    /// syncs. (A full ext4 would commit, to have more room.)
    pub(crate) fn write_to_free_blocks(&self) {
        let free = rustix::fs::statvfs(&self.dir).unwrap();
        let bytes = vec![0xfe; 1 << 20];
        for number in 0..free.f_bavail * free.f_frsize / (bytes.len() as u64) * 9 / 10 {
            let file = File::create(self.dir.join(format!("others' {number}"))).unwrap();
            let file = BackingFile::new(file.into());
            assert_eq!(file.write_at(&bytes, 0), Ok(bytes.len()));
            file.write_back(0, bytes.len() as u64).unwrap();
        }
    }

    /// Leaves no inode for another file (ext4).
    pub(crate) fn use_up_inodes(&self) {
        let many = self.dir.join("many");
        fs::create_dir(&many).unwrap();
        for number in 0.. {
            if let Err(error) = File::create(many.join(number.to_string())) {
                assert_eq!(error.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
                break;
            }
        }
    }

    /// Gives back what [`Self::use_up_inodes`] took.
    pub(crate) fn free_inodes(&self) {
        fs::remove_dir_all(self.dir.join("many")).unwrap();
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.dir.join("filler")).unwrap();
        self.commit();
    }

    /// The power is cut, and the volume mounted again.
    pub(crate) fn cut(&mut self) {
        self.remember();
        self.go_back();
    }

    /// Notes what is on the disk at this moment, for [`Self::go_back`].
    pub(crate) fn remember(&self) {
        let image = self.dir.with_file_name("image");
        let left = self.dir.with_file_name("left");
        let copied = Command::new("cp").arg("--sparse=always").arg(&image).arg(&left).status();
        assert!(copied.unwrap().success());
    }

    /// As if the power had been cut when the disk was last remembered; the volume is mounted again.
    pub(crate) fn go_back(&mut self) {
        let image = self.dir.with_file_name("image");
        let left = self.dir.with_file_name("left");
        self.fixture.close();
        umount(&self.dir);
        fs::rename(left, &image).unwrap();
        assert!(mount(&image, &self.dir, self.options));
        self.fixture.reopen();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.fixture.close();
        umount(&self.dir);
        fs::remove_dir_all(self.dir.parent().unwrap()).ok();
    }
}

fn mount(image: &Path, dir: &Path, options: &str) -> bool {
    let done = Command::new("mount").args(["-o", options]).arg(image).arg(dir).output().unwrap();
    done.status.success()
}

fn umount(dir: &Path) {
    // What another test is just starting holds our files for a moment, between fork and exec.
    let _ = Command::new("umount").arg("-l").arg(dir).status();
}
