//! The filesystems under a vault, as the kernel has them.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::tools::{program, run};

/// A filesystem, how it is made and how it is mounted.
pub(crate) struct Backing {
    /// What failures call it.
    pub(crate) name: &'static str,
    kind: &'static str,
    make: &'static [&'static str],
    /// Images of one filesystem are mounted beside each other: XFS has to be told.
    options: &'static str,
    megabytes: u64,
}

/// No background work that would differ from run to run, no discards (the disk has none).
const EXT4: &[&str] = &["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,nodiscard"];

pub(crate) static ORDERED: Backing =
    Backing { name: "ext4", kind: "ext4", make: EXT4, options: "data=ordered", megabytes: 128 };
pub(crate) static WRITEBACK: Backing = Backing {
    name: "ext4-writeback",
    kind: "ext4",
    make: EXT4,
    options: "data=writeback",
    megabytes: 128,
};
pub(crate) static JOURNAL: Backing = Backing {
    name: "ext4-journal",
    kind: "ext4",
    make: EXT4,
    options: "data=journal",
    megabytes: 128,
};
pub(crate) static SMALL: Backing = Backing {
    name: "ext4-1k",
    kind: "ext4",
    make: &["-q", "-F", "-b", "1024", "-E", "lazy_itable_init=0,nodiscard"],
    options: "data=ordered",
    megabytes: 128,
};
pub(crate) static XFS: Backing = Backing {
    name: "xfs",
    kind: "xfs",
    make: &["-q", "-f", "-K"],
    options: "nouuid",
    megabytes: 320,
};
pub(crate) static BTRFS: Backing = Backing {
    name: "btrfs",
    kind: "btrfs",
    make: &["-q", "-f", "-K"],
    options: "rw",
    megabytes: 160,
};

impl Backing {
    /// Units: bytes.
    pub(crate) fn size(&self) -> u64 {
        self.megabytes << 20
    }

    /// Whether a page of 4096 bytes is one block.
    pub(crate) fn whole_pages(&self) -> bool {
        self.name != SMALL.name
    }

    /// Held while the filesystem is there: btrfs may take two images of one filesystem for one.
    pub(crate) fn alone(&self) -> Option<MutexGuard<'static, ()>> {
        static ALONE: Mutex<()> = Mutex::new(());
        (self.kind == "btrfs").then(|| ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the filesystem on a device.
    pub(crate) fn make(&self, device: &Path) {
        let mut mkfs = Command::new(program(&format!("mkfs.{}", self.kind)));
        run(mkfs.args(self.make).arg(device)).unwrap();
    }

    /// Mounts it, with whatever recovery the kernel finds necessary.
    pub(crate) fn mount(&self, device: &Path, dir: &Path) -> Result<(), String> {
        let mut mount = Command::new(program("mount"));
        mount.args(["-t", self.kind, "-o", self.options]).arg(device).arg(dir);
        run(&mut mount).map(drop).map_err(|said| {
            format!("{said}(does this kernel have {}? see /proc/filesystems)", self.kind)
        })
    }
}
