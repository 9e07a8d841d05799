//! The contents of one file: plaintext in, backing pages out, in an order that a crash cannot hurt.
//!
//! Everything that changes size or contents, by whatever handle or path it comes, goes through the
//! one [`Content`] of its inode. Lock order: `gate`, then `state`, then the cache of spill pages.
//! A writer holds `gate` shared and `state` exclusively; a reader holds `state` shared; a sync holds
//! `gate` exclusively while the disk works, so that no spill page changes under it (R2b) while
//! readers go on. FORMAT section 11 has the crash argument of every step.

mod block;
mod groups;
mod header;
mod mend;
mod read;
mod recover;
mod resize;
mod seek;
mod shared;
mod sync;
mod write;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use crate::crypto::secret::Secret;
use crate::envelope::layout::{Block, Copy2, Group, plain_size};
use crate::envelope::{
    FileHeader, FileKeys, Recipient, SessionWord, SpillPage, UnitCipher, XattrKeys,
};
use crate::id::FileId;

use super::backing::Backing;
use super::error::{Result, VolumeError};

pub use mend::{Look, Mended};
pub use resize::Reserve;
pub use seek::SeekTo;
pub(in crate::volume) use shared::explains;
pub use shared::{Announcements, Shared};

/// Where a file's key comes from: the volume's keyring, or a fixed key in tests.
pub trait KeySource: Send + Sync {
    /// Makes a file id and a file key for a file that has none yet.
    ///
    /// # Errors
    /// `KeyUnusable` when the directory's KMS key may not be used now.
    fn create(&self) -> Result<(FileId, Secret<32>, Recipient)>;

    /// Unwraps the file key of a header that nobody has vouched for yet.
    ///
    /// # Errors
    /// `KeyUnusable`, or `ForeignKey` when the header names a key that the directory does not
    /// accept (R9).
    fn unwrap(&self, claims: &FileHeader) -> Result<Secret<32>>;
}

/// Whether changes are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing on the disk may change, not even to repair it.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// The contents of one inode.
pub struct Content {
    backing: Arc<dyn Backing>,
    keys: Arc<dyn KeySource>,
    shared: Arc<Shared>,
    access: Access,
    gate: RwLock<()>,
    state: RwLock<State>,
}

struct State {
    size: u64,
    /// Nothing was ever written of groups that begin at or behind this offset: their spill pages
    /// need not be looked for.
    untouched: u64,
    /// True once the backing file has (or is about to get) a header.
    has_header: bool,
    /// The keys and the header; `None` when there is no header, or when the keys were wiped.
    ready: Option<Ready>,
    spills: Mutex<HashMap<Group, GroupState>>,
    marks: Marks,
    /// Crashed sessions that may explain what is odd in the file, as they were when its header was
    /// read.
    excuses: Vec<SessionWord>,
    /// Below this offset nothing is odd any more, whatever a crash left.
    mended: u64,
    /// Recovery found blocks that cannot be read: what is behind the seal stays unsealed.
    spoiled: bool,
    /// The generation of announcements that the file is in; 0 for none.
    announced: u64,
}

struct Ready {
    header: FileHeader,
    keys: FileKeys,
    cipher: UnitCipher,
    /// The header is not on the disk yet: it goes out with page 0.
    fresh: bool,
}

/// One of the two header slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    A,
    B,
}

/// A group's spill page: what it says, and which copy of it a crash leaves.
#[derive(Debug)]
struct GroupState {
    /// The decrypted page; dropped under memory pressure, read again when needed.
    page: Option<SpillPage>,
    sequence: u64,
    /// The copy that the last sync made durable: never written before another one is (R2a).
    durable: Option<Copy2>,
    /// The copy written since the last sync.
    written: Option<Copy2>,
    /// The `Marks::generation` of the last update.
    updated: u64,
    /// Neither copy could be read: what they held is lost until the file is truncated to 0.
    lost: bool,
    /// The disk has something else than `page`, and `page` is right.
    owed: bool,
}

/// What is written but not durable. Outlives the last close, until a sync.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    header_durable: Option<Slot>,
    header_written: Option<Slot>,
    header_updated: u64,
    /// Groups whose roles are not yet back to "the newest copy is durable".
    groups: HashMap<Group, GroupMark>,
    /// Blocks that held older durable bytes and were partly rewritten since the last sync (R4).
    rewritten: HashSet<Block>,
    /// Bytes below this may have been durable at the last sync.
    durable_size: u64,
    /// Contents or size changed since the last sync.
    contents_dirty: bool,
    /// Contents or size changed since the last seal, by this daemon.
    unsealed: bool,
    /// A change failed, perhaps half way: blocks may need a look before the next seal.
    unsure: bool,
    /// A sync failed: nobody knows what is on the disk, so nothing of it is sealed.
    sync_failed: bool,
    generation: u64,
    dirty_since: Option<Instant>,
    /// When the last handle was closed.
    parked_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct GroupMark {
    sequence: u64,
    durable: Option<Copy2>,
    written: Option<Copy2>,
    updated: u64,
}

impl Content {
    /// The contents that `backing` holds. Reads and authenticates the header, if there is one.
    ///
    /// `marks` are those that [`Self::into_marks`] gave when the inode was last closed.
    ///
    /// # Errors
    /// `KeyUnusable`, `ForeignKey`, `Tampered` (header, or cut below its seal), `Lost`.
    pub(super) fn open(
        backing: Arc<dyn Backing>,
        keys: Arc<dyn KeySource>,
        shared: Arc<Shared>,
        access: Access,
        marks: Option<Marks>,
    ) -> Result<Self> {
        let length = backing.length()?;
        let fresh = marks.is_none();
        let (size, valid) = plain_size(length);
        let mut state = State {
            size,
            untouched: if valid { size } else { u64::MAX },
            has_header: length > 0,
            ready: None,
            spills: Mutex::default(),
            marks: marks.unwrap_or_default(),
            excuses: Vec::new(),
            mended: 0,
            spoiled: false,
            announced: 0,
        };
        if fresh {
            state.marks.durable_size = size;
        }
        let content = Self {
            backing,
            keys,
            shared,
            access,
            gate: RwLock::new(()),
            state: RwLock::new(state),
        };
        {
            let mut state = content.write_state();
            content.load(&mut state)?;
            content.check_size(&mut state)?;
        }
        Ok(content)
    }

    /// Contents of a volume without a history, over any backing: what tests and benches open.
    ///
    /// # Errors
    /// As `open`.
    pub fn over(
        backing: Arc<dyn Backing>,
        keys: Arc<dyn KeySource>,
        shared: Arc<Shared>,
        access: Access,
    ) -> Result<Self> {
        Self::open(backing, keys, shared, access, None)
    }

    /// The same as a last close and the next open of the inode: what is not durable stays known.
    ///
    /// # Errors
    /// As `open`.
    pub fn reopen(self) -> Result<Self> {
        let (backing, keys) = (self.backing.clone(), self.keys.clone());
        let (shared, access) = (self.shared.clone(), self.access);
        let marks = self.into_marks();
        Self::open(backing, keys, shared, access, marks)
    }

    /// True if a write or sync failed in a way that only a look after a crash can settle.
    pub fn in_doubt(&self) -> bool {
        self.shared.in_doubt()
    }

    /// The plaintext size in bytes.
    pub fn size(&self) -> u64 {
        self.read_state().size
    }

    /// The header's claims as they were authenticated, if the file has one and its keys are here.
    pub fn header(&self) -> Option<FileHeader> {
        self.read_state().ready.as_ref().map(|ready| ready.header.clone())
    }

    /// Forgets every key and every decrypted byte. The next use asks for the key again.
    pub fn wipe(&self) {
        let mut state = self.write_state();
        self.leave_nothing_owed(&mut state);
        if state.ready.take().is_some_and(|ready| ready.fresh) {
            // Nothing of this header is on the disk: the next write makes another.
            state.has_header = false;
        }
        self.forget_spills(&mut state);
    }

    /// Forgets the cached spill pages, but not which copies of them are durable.
    fn forget_spills(&self, state: &mut State) {
        let State { spills, marks, .. } = state;
        let spills = spills.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (group, spill) in spills.drain() {
            self.forget_cached(&spill);
            spill.keep_mark(group, &mut marks.groups);
        }
    }

    /// The keys of the file's extended attributes; gives an empty file its header.
    ///
    /// # Errors
    /// As a write.
    pub fn xattr_keys(&self, change: Access) -> Result<Option<XattrKeys>> {
        {
            let state = self.ready_state()?;
            match &state.ready {
                Some(ready) if change == Access::ReadOnly || ready.header.flags.xattrs => {
                    return Ok(Some(ready.keys.xattr_keys()));
                }
                None if change == Access::ReadOnly => return Ok(None),
                _ => {}
            }
        }
        let _gate = self.enter();
        let mut state = self.write_state();
        self.ensure_header(&mut state)?;
        self.update_header(&mut state, |header| header.flags.xattrs = true)?;
        self.write_fresh_header(&mut state)?;
        Ok(state.ready.as_ref().map(|ready| ready.keys.xattr_keys()))
    }

    /// What must be remembered when the inode is closed before it was synced.
    pub(super) fn into_marks(self) -> Option<Marks> {
        self.leave_nothing_owed(&mut self.write_state());
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let State { spills, marks, .. } = &mut state;
        let spills = spills.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (group, spill) in spills.drain() {
            if spill.page.is_some() {
                self.shared.cached.fetch_sub(1, Ordering::Relaxed);
            }
            spill.keep_mark(group, &mut marks.groups);
        }
        state.marks.parked_since = Some(Instant::now());
        let marks = &state.marks;
        (marks.is_dirty() || marks.unsure || marks.unsealed).then_some(state.marks)
    }

    /// The outcome of a change; after a failure the file is looked through before its next seal.
    fn noting<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.is_err() {
            let mut state = self.write_state();
            state.marks.unsure = true;
            state.mended = 0;
        }
        outcome
    }

    /// A shared view of a state whose keys are loaded (or that has no header).
    fn ready_state(&self) -> Result<RwLockReadGuard<'_, State>> {
        loop {
            let state = self.read_state();
            if state.ready.is_some() || !state.has_header {
                return Ok(state);
            }
            drop(state);
            self.load(&mut self.write_state())?;
        }
    }

    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    // No step leaves the state half changed on a panic, so a poisoned lock is taken as it is.
    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_cached(&self, spill: &GroupState) {
        if spill.page.is_some() {
            self.shared.cached.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl State {
    fn spills(&self) -> MutexGuard<'_, HashMap<Group, GroupState>> {
        self.spills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> Result<&Ready> {
        self.ready.as_ref().ok_or(VolumeError::Lost("file header"))
    }

    fn sparse(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.header.flags.sparse)
    }
}

impl Marks {
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_since.is_some()
    }

    pub(super) fn dirty_since(&self) -> Option<Instant> {
        self.dirty_since
    }

    /// Since when the file waits for a sync, or at least for a seal.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.dirty_since.or(self.parked_since)
    }

    /// True if a call failed, and only a look at the blocks tells what they hold.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure || self.sync_failed
    }

    fn touch(&mut self) -> u64 {
        self.generation += 1;
        self.dirty_since.get_or_insert_with(Instant::now);
        self.generation
    }
}

impl GroupState {
    fn keep_mark(&self, group: Group, marks: &mut HashMap<Group, GroupMark>) {
        if !self.is_forgettable() {
            let mark = GroupMark {
                sequence: self.sequence,
                durable: self.durable,
                written: self.written,
                updated: self.updated,
            };
            marks.insert(group, mark);
        } else {
            marks.remove(&group);
        }
    }
}

impl Slot {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn offset(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => 512,
        }
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
