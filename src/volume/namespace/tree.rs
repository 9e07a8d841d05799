//! The state of the namespace: what the kernel knows, what is held open, what is locked.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::fs::{Stat, fstat, fstatfs, fstatvfs};
use rustix::process::{Gid, Resource, Uid, getegid, geteuid, getrlimit};

use super::dir_cache::DirCache;
use super::dir_locks::DirLocks;
use super::dir_rules::DirAnchor;
use super::inode::InodeTable;
use super::listings::Listings;
use super::renames::Renames;
use super::set_id::SetIdCounter;
use super::twins::Twins;
use super::unsynced::Unsynced;
use crate::crypto::random;
use crate::envelope::TEMP_PREFIX;
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::handle::Handle;
use crate::volume::backing::identity::{Fingerprints, InodeIdentity, InodeStat};
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::errseq::DirErrors;
use crate::volume::model::options::Options;

/// Directories held open at most; fewer when the process may open few files.
const MAX_DIRS: u64 = 4096;
/// Source: statfs(2).
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const TMPFS: u64 = 0x0102_1994;
const BTRFS: u64 = 0x9123_683e;
const F2FS: u64 = 0xf2f5_2010;
const BCACHEFS: u64 = 0xca45_1a4e;
const ZFS: u64 = 0x2fc1_2fc1;

/// The namespace half of a volume.
#[derive(Debug)]
pub(in crate::volume) struct Tree {
    pub(in crate::volume) inodes: Arc<InodeTable>,
    pub(in crate::volume) dirs: DirCache,
    pub(in crate::volume) listings: Listings,
    pub(in crate::volume) locks: DirLocks,
    /// The same for inodes: held by whoever moves a file to a directory that may have another key, from
    /// before the first wrap until after the last, and by a re-wrap from before it looks where the file
    /// is. Taken before all other locks but the one of the renames.
    pub(in crate::volume) wraps: DirLocks,
    pub(in crate::volume) unsynced: Unsynced,
    pub(in crate::volume) errors: DirErrors,
    pub(in crate::volume) set_ids: SetIdCounter,
    /// Held for writing by whoever changes what a directory says of keys or of its place, for
    /// reading by whoever makes one that inherits. Taken before the locks of directories, never
    /// after.
    pub(in crate::volume) descriptors: RwLock<()>,
    pub(in crate::volume) anchor: DirAnchor,
    pub(in crate::volume) twins: Twins,
    /// How often a file came into a directory under a key of its own, or a directory got a former key.
    pub(in crate::volume) kept: AtomicU64,
    /// Held while a directory comes to accept another key, until that is durable.
    pub(in crate::volume) accepting: Mutex<()>,
    /// How often a directory was renamed.
    pub(in crate::volume) moved: AtomicU64,
    pub(in crate::volume) renames: Renames,
    /// The backing filesystem writes attributes and names to the disk in the order of the calls: its
    /// journal keeps the order of all changes of metadata, or a crash loses everything.
    pub(in crate::volume) one_journal: bool,
    /// The backing filesystem never changes when an inode was born.
    births: bool,
    /// Held for writing while an owner is changed and the kernel is told, and for reading while the
    /// kernel is told what was found.
    pub(in crate::volume) owners: RwLock<()>,
    pub(in crate::volume) options: Options,
    pub(in crate::volume) hasher: Fingerprints,
    root: OwnedFd,
    meta: OwnedFd,
    device: u64,
    owner: (Uid, Gid),
    temp_stem: String,
    temps: AtomicU64,
}

/// Space and inodes of the backing filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Blocks in all, in units of `fragment`.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for users that are not root.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred size of a request in bytes.
    pub block_size: u32,
    /// Bytes that one block stands for.
    pub fragment: u32,
}

impl Tree {
    /// The namespace of the vault whose root directory is `root`, with its own directory `meta`.
    ///
    /// # Errors
    /// Those of the backing filesystem, and `Random`.
    pub(in crate::volume) fn new(
        root: OwnedFd,
        meta: OwnedFd,
        options: Options,
        anchor: DirAnchor,
    ) -> Result<Self> {
        let stat = fstat(&root)?;
        let mut session = [0; 4];
        random::fill(&mut session)?;
        Ok(Self {
            inodes: Arc::new(InodeTable::new(stat.st_ino).exporting(options.export)),
            descriptors: RwLock::default(),
            anchor,
            twins: Twins::default(),
            kept: AtomicU64::new(0),
            accepting: Mutex::default(),
            moved: AtomicU64::new(0),
            renames: Renames::default(),
            one_journal: is_one_of(&root, &[EXT4, XFS, TMPFS])?,
            births: is_one_of(&root, &[EXT4, XFS, TMPFS, BTRFS, F2FS, BCACHEFS, ZFS])?,
            owners: RwLock::default(),
            dirs: DirCache::new(dir_capacity()),
            listings: Listings::default(),
            locks: DirLocks::new(),
            wraps: DirLocks::new(),
            unsynced: Unsynced::default(),
            errors: DirErrors::default(),
            set_ids: SetIdCounter::default(),
            options,
            hasher: Fingerprints::new(),
            root,
            meta,
            device: stat.st_dev,
            owner: (geteuid(), getegid()),
            temp_stem: format!("{TEMP_PREFIX}{:08x}.", u32::from_be_bytes(session)),
            temps: AtomicU64::new(0),
        })
    }

    /// The root directory of the vault.
    pub(in crate::volume) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory of what belongs to the volume as a whole. Held for as long as the volume is
    /// open, so that nobody can put another in its place.
    pub(in crate::volume) fn meta(&self) -> BorrowedFd<'_> {
        self.meta.as_fd()
    }

    /// Space and inodes of the backing filesystem.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn space(&self) -> Result<Space> {
        let stat = fstatvfs(&self.root)?;
        Ok(Space {
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_size: u32::try_from(stat.f_bsize).unwrap_or(4096),
            fragment: u32::try_from(stat.f_frsize).unwrap_or(4096),
        })
    }

    /// A name for something that is being made and gets its real name when it is complete.
    pub(in crate::volume) fn temp_name(&self) -> BackingName {
        let number = self.temps.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{number}", self.temp_stem);
        BackingName::new(name.into_bytes()).expect("a short name without slashes")
    }

    /// True for a temporary name that an earlier run left behind. The vault is held exclusively,
    /// so nobody else's run is under way.
    pub(in crate::volume) fn is_stale_temp(&self, entry: &BackingName) -> bool {
        let entry = entry.bytes();
        entry.starts_with(TEMP_PREFIX.as_bytes()) && !entry.starts_with(self.temp_stem.as_bytes())
    }

    /// Refuses what is mounted inside of the vault: its inode numbers are not ours.
    pub(in crate::volume) fn same_device(&self, stat: &Stat) -> Result<()> {
        if stat.st_dev == self.device { Ok(()) } else { Err(rustix::io::Errno::XDEV.into()) }
    }

    /// Refuses an inode whose number is not shown as `ino`: somebody put it in place of the one that
    /// was.
    pub(in crate::volume) fn same_number(&self, stat: &Stat, ino: u64) -> Result<()> {
        self.same_device(stat)?;
        if self.inodes.shown(stat.st_ino) == ino { Ok(()) } else { Err(VolumeError::Stale) }
    }

    /// Refuses what is not the inode that the kernel knows as `ino`, even if it got the
    /// same number later.
    pub(in crate::volume) fn same_inode(&self, seen: &InodeStat, ino: u64) -> Result<()> {
        self.same_number(&seen.stat, ino)?;
        match self.inodes.known_identity(ino) {
            Some(known) if !known.is_born_with(self.identity(seen)) => Err(VolumeError::Stale),
            _ => Ok(()),
        }
    }

    /// Also refuses an inode whose owner is not the one that the kernel knows: it judged a request by
    /// that. Only root's rights reach further than those of the owner that we have in common.
    pub(in crate::volume) fn as_known(&self, held: &Handle, ino: u64) -> Result<()> {
        self.same_inode(held.seen(), ino)?;
        if !self.is_root() || self.has_known_owner(held.seen(), ino) {
            return Ok(());
        }
        // A change of the owner that is under way ends by telling the kernel.
        let _owners = self.owners.read();
        if self.has_known_owner(&InodeStat::of(held)?, ino) {
            Ok(())
        } else {
            Err(VolumeError::Stale)
        }
    }

    fn has_known_owner(&self, seen: &InodeStat, ino: u64) -> bool {
        self.inodes.known_identity(ino).is_none_or(|known| known.owner == self.identity(seen).owner)
    }

    /// The identity of an inode, as the kernel learns it.
    pub(in crate::volume) fn identity(&self, seen: &InodeStat) -> InodeIdentity {
        seen.identity(self.births, &self.hasher)
    }

    /// Held while the kernel is told whose an inode is.
    pub(in crate::volume) fn telling(&self) -> Option<RwLockReadGuard<'_, ()>> {
        let lock = || self.owners.read();
        self.is_root().then(lock)
    }

    /// Refuses changes on a read-only volume.
    pub(in crate::volume) fn writable(&self) -> Result<()> {
        if self.options.read_only { Err(VolumeError::ReadOnly) } else { Ok(()) }
    }

    /// True if this process may give files to other users.
    pub(in crate::volume) fn is_root(&self) -> bool {
        self.owner.0.is_root()
    }

    /// True for what this process made and has given to nobody yet.
    pub(in crate::volume) fn is_ours(&self, stat: &Stat) -> bool {
        stat.st_uid == self.owner.0.as_raw()
    }

    /// The owner and group to give a new file, where they are not this process's own already.
    pub(in crate::volume) fn new_owner(
        &self,
        caller: Caller,
        setgid: bool,
    ) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = (Uid::from_raw(caller.uid), Gid::from_raw(caller.gid));
        let uid = (self.is_root() && uid != self.owner.0).then_some(uid);
        let gid = (self.is_root() && !setgid && gid != self.owner.1).then_some(gid);
        (uid, gid)
    }
}

fn is_one_of(root: &OwnedFd, kinds: &[u64]) -> Result<bool> {
    let kind = u64::try_from(fstatfs(root)?.f_type).unwrap_or(0);
    Ok(kinds.contains(&kind))
}

/// A quarter of the descriptors that this process may have is for directories.
fn dir_capacity() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MAX_DIRS * 4);
    usize::try_from((files / 4).clamp(16, MAX_DIRS)).unwrap_or(16)
}
