//! What fsync(2) keeps on a real ext4, and what a disk that is gone answers.
//!
//! ext4 can be told to stop as at a power cut: what its journal has not committed is lost. It
//! commits by itself once an hour here, so what is there afterwards is there because of a sync.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Signal, kill_process};

use crate::harness::{Sandbox, Shell, Vault, is_root, program};

/// An ext4 of its own.
struct Disk {
    sandbox: Sandbox,
}

impl Disk {
    fn new(name: &str) -> Self {
        Self::with_blocks(name, 4096)
    }

    fn with_blocks(name: &str, size: u32) -> Self {
        assert!(is_root(), "this test mounts ext4: run it as root, or skip it by name");
        program("mkfs.ext4");
        let disk = Self { sandbox: Sandbox::new(name) };
        disk.sandbox.dir("disk");
        disk.shell().run(&format!("truncate -s 64M image; mkfs.ext4 -q -F -b {size} image"));
        disk.attach();
        disk
    }

    fn shell(&self) -> Shell {
        Shell::new(self.sandbox.path(""))
    }

    fn vault(&self) -> PathBuf {
        self.sandbox.path("disk/vault")
    }

    fn attach(&self) {
        self.shell().run("mount -o loop,commit=3600 image disk");
    }

    /// What was there before stays, whatever comes.
    fn settle(&self) {
        self.shell().run("sync -f disk");
    }

    /// From here on nothing reaches the disk, the journal included.
    fn cut(&self) {
        let going_down = "import fcntl, os, struct\n\
             fcntl.ioctl(os.open('disk', os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        self.shell().run(&format!("python3 -c \"{going_down}\""));
    }

    /// The power is back.
    fn restart(&self) {
        self.shell().run("umount disk");
        self.attach();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.shell().output("umount disk || umount -l disk");
    }
}

/// Nobody told that such a filesystem can lose what was synced.
#[test]
fn regression_a_filesystem_that_writes_pages_in_pieces_is_told_of() {
    for size in [1024, 4096] {
        let disk = Disk::with_blocks("blocks", size);
        let vault = Vault::at("blocks-mnt", disk.vault());
        let mount = vault.mount();
        let words = format!("has blocks of {size} bytes");
        let status = vault.kmsfs(["status", disk.vault().to_str().unwrap()]);
        let doctor = vault.command().arg("doctor").output().unwrap();
        mount.unmount();
        let small = size < 4096;
        assert_eq!(vault.log().contains(&words), small, "{}", vault.log());
        assert_eq!(status.contains(&words), small, "{status}");
        let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert_eq!(doctor.contains(&words), small, "{doctor}");
    }
}

/// A change of `file`, which is in a directory with `other`, and what must be there after a cut.
const CHANGES: &[(&str, &str, &str)] = &[
    ("mode", "chmod 0640 file", "test $(stat -c %a file) = 640"),
    ("owner", "chown 12:34 file", "test $(stat -c %u:%g file) = 12:34"),
    ("times", "touch -d @1000 file", "test $(stat -c %Y file) = 1000"),
    (
        "an attribute",
        "setfattr -n user.note -v kept file",
        "test $(getfattr --only-values -n user.note file) = kept",
    ),
    ("an ACL", "setfacl -m u:77:r file", "getfacl -n file | grep -q user:77:r"),
    ("a rename", "mv file moved", "test $(cat moved) = contents && test ! -e file"),
    ("a move", "mv file other/", "test $(cat other/file) = contents && test ! -e file"),
];

/// Every sync was one of contents and length alone: ext4 then has no reason to commit anything else.
#[test]
fn regression_fsync_keeps_attributes_and_names() {
    let disk = Disk::new("durable");
    let vault = Vault::at("durable-mnt", disk.vault());
    for (what, change, check) in CHANGES {
        let mount = vault.mount();
        let dir = mount.path(what);
        fs::create_dir(&dir).unwrap();
        let shell = Shell::new(&dir);
        shell.run("mkdir other; printf contents > file; setfattr -n user.first -v set file");
        disk.settle();
        shell.run(change);
        shell.run("python3 -c 'import glob, os; [os.fsync(os.open(f, 0)) for f in glob.glob(\"**/*\", recursive=True) if os.path.isfile(f)]'");
        disk.cut();
        mount.kill();
        disk.restart();
        let mount = vault.mount();
        let kept = Shell::new(&dir).output(check);
        assert!(kept.status.success(), "{what} was lost");
        mount.unmount();
    }
}

/// The error was in a log that nobody reads, and whoever unmounted heard that all was well.
#[test]
fn regression_a_session_that_cannot_be_ended_is_told_to_whoever_unmounts() {
    let disk = Disk::new("farewell");
    let vault = Vault::at("farewell-mnt", disk.vault());
    let words = "could not be ended";
    for ask in [true, false] {
        let mut mount = vault.mount();
        fs::write(mount.path("file"), "contents").unwrap();
        disk.cut();
        if ask {
            let told = vault.command().arg("umount").arg(mount.root()).output().unwrap();
            let said = String::from_utf8_lossy(&told.stderr).into_owned();
            assert_eq!(told.status.code(), Some(20), "{said}");
            assert!(said.contains(words), "{said}");
        } else {
            kill_process(mount.pid(), Signal::TERM).unwrap();
        }
        assert_eq!(mount.wait_for_end().code(), Some(20));
        assert!(vault.log().contains(words), "{}", vault.log());
        drop(mount);
        disk.restart();
    }
    vault.mount().unmount();
}
