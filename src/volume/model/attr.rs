//! Attributes of a file as the user sees them.
//!
//! Owner, mode, times, device number and link count are those of the backing inode. Only size and
//! blocks differ: they are computed from the backing size without reading anything.

use rustix::fs::{FileType, Stat};

use crate::envelope::layout;

/// Units: `st_blocks` counts these.
const SECTOR: u64 = 512;
/// What `st_blksize` says: one plaintext page.
const BLOCK: u64 = 4096;

/// What kind of file an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    Regular,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// A point in time: seconds since 1970 (negative before) plus nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970; negative before.
    pub secs: i64,
    /// Nanoseconds to add, below 1,000,000,000.
    pub nanos: u32,
}

/// The attributes of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number; 1 is the root.
    pub ino: u64,
    /// Tells it from other inodes that had this number, where it was looked up; 0 if unknown.
    pub generation: u64,
    /// Plaintext size in bytes.
    pub size: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the contents.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Kind of file.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub perm: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as the kernel encodes it in 32 bits.
    pub rdev: u32,
}

/// What to change in an inode's attributes; `None` leaves a field alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New plaintext size.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<NewTime>,
    /// New modification time.
    pub mtime: Option<NewTime>,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewTime {
    /// The clock of the machine.
    Now,
    /// This time.
    At(Timestamp),
}

impl Timestamp {
    /// The time this many nanoseconds after 1970 (before it, if negative).
    pub fn from_nanos(nanos: i64) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let fraction = u32::try_from(nanos.rem_euclid(SECOND)).unwrap_or(0);
        Self { secs: nanos.div_euclid(SECOND), nanos: fraction }
    }

    /// Nanoseconds since 1970, at most as many as the number can hold.
    pub fn as_nanos(self) -> i64 {
        self.secs.saturating_mul(1_000_000_000).saturating_add(self.nanos.into())
    }
}

impl FileKind {
    /// The kind that a `st_mode` states; `None` for one that Linux does not have.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Self::from_type(FileType::from_raw_mode(mode))
    }

    /// The kind that a directory entry states; `None` when it states none.
    pub fn from_type(file_type: FileType) -> Option<Self> {
        match file_type {
            FileType::RegularFile => Some(Self::Regular),
            FileType::Directory => Some(Self::Directory),
            FileType::Symlink => Some(Self::Symlink),
            FileType::Fifo => Some(Self::Fifo),
            FileType::Socket => Some(Self::Socket),
            FileType::CharacterDevice => Some(Self::CharDevice),
            FileType::BlockDevice => Some(Self::BlockDevice),
            _ => None,
        }
    }
}

impl Attr {
    /// The attributes of the backing inode `stat`, shown as inode `ino`.
    ///
    /// A symbolic link keeps its backing size: the caller that knows its text sets the size.
    pub fn from_stat(ino: u64, stat: &Stat) -> Self {
        let kind = FileKind::from_mode(stat.st_mode).unwrap_or(FileKind::Regular);
        let backing = u64::try_from(stat.st_size).unwrap_or(0);
        let size = match kind {
            FileKind::Regular => layout::plain_size(backing).0,
            _ => backing,
        };
        let mut attr = Self {
            ino,
            generation: 0,
            size,
            blocks: stat.st_blocks.try_into().unwrap_or(0),
            atime: timestamp(stat.st_atime, stat.st_atime_nsec),
            mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec),
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec),
            kind,
            perm: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: encode_device(stat.st_rdev),
        };
        attr.set_size(size);
        attr
    }

    /// Shows another size: the one of an open file that is ahead of its backing inode.
    pub fn set_size(&mut self, size: u64) {
        self.size = size;
        if self.kind == FileKind::Regular {
            // The envelope's own pages are not the user's: a dense file takes what its size takes.
            self.blocks = self.blocks.min(size.div_ceil(BLOCK) * (BLOCK / SECTOR));
        }
    }
}

/// The 32-bit form in which the kernel's FUSE protocol passes a device number.
pub fn encode_device(dev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(dev), rustix::fs::minor(dev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The device number that [`encode_device`] encoded.
pub fn decode_device(encoded: u32) -> u64 {
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
    rustix::fs::makedev((encoded >> 8) & 0xfff, minor)
}

fn timestamp<N: TryInto<u32>>(secs: i64, nanos: N) -> Timestamp {
    Timestamp { secs, nanos: nanos.try_into().unwrap_or(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_the_32_bit_form() {
        for (major, minor) in [(0, 0), (1, 3), (8, 1), (255, 255), (0xfff, 0xfffff)] {
            let dev = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(encode_device(dev)), dev, "{major}:{minor}");
        }
    }

    #[test]
    fn a_mode_states_its_kind() {
        assert_eq!(FileKind::from_mode(0o100644), Some(FileKind::Regular));
        assert_eq!(FileKind::from_mode(0o040755), Some(FileKind::Directory));
        assert_eq!(FileKind::from_mode(0o120777), Some(FileKind::Symlink));
        assert_eq!(FileKind::from_mode(0), None);
    }
}
