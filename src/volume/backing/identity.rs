//! Which inode has a number.
//!
//! A filesystem uses a number again when its inode is gone, and whoever may write to a backing
//! directory decides which inode goes and what name the next one gets. The kernel judges a request
//! by what it was told of a number, up to an hour ago. So two things are remembered of each number
//! that it was told of, and compared before anything is done with it: when the inode was born, and
//! whose it was. Births are written with the precision of the kernel's tick (a few milliseconds): of
//! two inodes of one tick, the owner tells apart those that make a difference.

use std::hash::{BuildHasher, Hash, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Stat, Statx, StatxFlags, fstat, makedev, statx};
use rustix::io::Errno;

use crate::sys;

/// The hasher of fingerprints.
pub(in crate::volume) type Fingerprints = RandomState;

/// The attributes of an inode, and when it was born where the filesystem says so.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct InodeStat {
    pub(in crate::volume) stat: Stat,
    born: Option<(i64, u32)>,
    /// What tells it from every other inode that had its number, or will have it; not always asked for.
    generation: Option<u32>,
}

/// Which inode has a number, in short, as the kernel was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::volume) struct InodeIdentity {
    /// A fingerprint of the time of its birth; 0 where that is unknown.
    pub(in crate::volume) birth: u32,
    /// A fingerprint of its owner and group.
    pub(in crate::volume) owner: u32,
}

impl InodeStat {
    /// Looks at what is open.
    pub(in crate::volume) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        look(fd.as_fd())
    }

    /// The same with its generation, for whoever comes back by number.
    pub(in crate::volume) fn with_generation(fd: impl AsFd) -> Result<Self, Errno> {
        let generation = Some(sys::handle_sum(fd.as_fd())?);
        Ok(Self { generation, ..look(fd.as_fd())? })
    }

    /// The generation, if it was asked for.
    pub(in crate::volume) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// The identity of the inode. `births`: the filesystem never changes when an inode was born.
    pub(in crate::volume) fn identity(&self, births: bool, hasher: &Fingerprints) -> InodeIdentity {
        let birth = self.born.filter(|_| births).map_or(0, |born| short(hasher, born).max(1));
        InodeIdentity { birth, owner: short(hasher, (self.stat.st_uid, self.stat.st_gid)) }
    }
}

impl InodeIdentity {
    /// False if this is certainly another inode.
    pub(in crate::volume) fn is_born_with(self, other: Self) -> bool {
        self.birth == other.birth || self.birth == 0 || other.birth == 0
    }
}

/// One system call, whatever it finds.
fn look(fd: BorrowedFd<'_>) -> Result<InodeStat, Errno> {
    match statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME) {
        Ok(found) => {
            let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
            let born = has_birth.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec));
            Ok(InodeStat { stat: as_stat(fd, &found)?, born, generation: None })
        }
        // Old kernels, and sandboxes that let no unknown call through.
        Err(Errno::NOSYS | Errno::PERM) => {
            Ok(InodeStat { stat: fstat(fd)?, born: None, generation: None })
        }
        Err(error) => Err(error),
    }
}

/// The same in the older form. Its fields for nothing are filled in from some inode, once.
fn as_stat(fd: BorrowedFd<'_>, found: &Statx) -> Result<Stat, Errno> {
    static FORM: OnceLock<Stat> = OnceLock::new();
    let mut stat = match FORM.get() {
        Some(form) => *form,
        None => *FORM.get_or_init({
            let form = fstat(fd)?;
            move || form
        }),
    };
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    stat.st_dev = makedev(found.stx_dev_major, found.stx_dev_minor);
    stat.st_rdev = makedev(found.stx_rdev_major, found.stx_rdev_minor);
    stat.st_ino = found.stx_ino;
    stat.st_mode = found.stx_mode.into();
    stat.st_nlink = found.stx_nlink.into();
    (stat.st_uid, stat.st_gid) = (found.stx_uid, found.stx_gid);
    (stat.st_size, stat.st_blocks) = (signed(found.stx_size), signed(found.stx_blocks));
    stat.st_blksize = found.stx_blksize.into();
    stat.st_atime = found.stx_atime.tv_sec;
    stat.st_atime_nsec = found.stx_atime.tv_nsec.into();
    stat.st_mtime = found.stx_mtime.tv_sec;
    stat.st_mtime_nsec = found.stx_mtime.tv_nsec.into();
    stat.st_ctime = found.stx_ctime.tv_sec;
    stat.st_ctime_nsec = found.stx_ctime.tv_nsec.into();
    Ok(stat)
}

/// A fingerprint that only this process can make use of.
pub(in crate::volume) fn short(hasher: &Fingerprints, what: impl Hash) -> u32 {
    let [a, b, c, d, ..] = hasher.hash_one(what).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The same in half the room, and never 0.
pub(in crate::volume) fn fold(fingerprint: u32) -> u16 {
    let [a, b, ..] = fingerprint.to_le_bytes();
    u16::from_le_bytes([a, b]).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_looking_tell_the_same() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let (one, other) = (InodeStat::of(&file).unwrap().stat, fstat(&file).unwrap());
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
        let null = std::fs::File::open("/dev/null").unwrap();
        let (one, other) = (InodeStat::of(&null).unwrap().stat, fstat(&null).unwrap());
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn another_birth_or_owner_is_another_identity() {
        let hasher = Fingerprints::new();
        let seen = InodeStat::of(std::fs::File::open("/").unwrap()).unwrap();
        let identity = seen.identity(true, &hasher);
        let later = InodeStat { born: Some((1, 1)), ..seen }.identity(true, &hasher);
        let first = InodeStat { born: Some((1, 0)), ..seen }.identity(true, &hasher);
        assert!(!first.is_born_with(later));
        assert!(seen.identity(false, &hasher).is_born_with(later), "unknown");
        let mut given = seen;
        given.stat.st_uid += 1;
        assert_ne!(given.identity(true, &hasher).owner, identity.owner);
    }
}
