//! The contents of one file: plaintext in, backing pages out, in an order that a crash cannot hurt.
//!
//! Everything that changes size or contents, by whatever handle or path it comes, goes through the
//! one [`Content`] of its inode. Lock order: `gate`, then `state`, then the cache of spill pages.
//! A writer holds `gate` shared and `state` exclusively; a reader holds `state` shared; a sync holds
//! `gate` exclusively while the disk works, so that no spill page changes under it (R2b) while
//! readers go on. FORMAT section 11 has the crash argument of every step.

mod change;
mod durability;
mod header;
mod length;
mod mend;
mod pages;
mod present;
mod raise;
mod read;
mod recover;
mod resize;
mod seek;
mod shared;
mod spill;
mod sync;
mod torn;
mod write;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use rustix::io::Errno;

use crate::crypto::secret::Secret;
use crate::envelope::layout::{Block, Group, plain_size};
use crate::envelope::{FileHeader, FileKeys, Recipient, SessionWord, UnitCipher, XattrKeys};
use crate::id::FileId;

use crate::volume::backing::contents::Backing;
use crate::volume::journal::KeptPages;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::errseq::WriteErrors;
use header::HeaderSlots;
use pages::{Synced, Written};
use spill::{Roles, SpillCache, Spills};

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

    /// Decides by its claims whether a header that nobody has vouched for yet may be unwrapped. Asks
    /// no KMS.
    ///
    /// # Errors
    /// `ForeignKey` when the header names a key that the directory does not accept (R9).
    fn admit(&self, claims: &FileHeader) -> Result<()> {
        let _ = claims;
        Ok(())
    }

    /// Unwraps the file key of a header that is admitted.
    ///
    /// # Errors
    /// `KeyUnusable`, and those of [`Self::admit`].
    fn unwrap(&self, claims: &FileHeader) -> Result<Secret<32>>;

    /// The file has no contents, and so no key, until [`Self::create`] makes another.
    fn forget(&self) {}
}

/// Whether changes are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing on the disk may change, not even to repair it.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// What to do with a file whose header or length is lost or not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// It is not opened.
    Refused,
    /// It is opened all the same, so that it can be cut to nothing: everything else is refused later.
    Opened,
}

/// The contents of one inode.
pub struct Content {
    backing: Arc<dyn Backing>,
    keys: Arc<dyn KeySource>,
    shared: Arc<Shared>,
    access: Access,
    errors: WriteErrors,
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
    spills: Arc<Spills>,
    marks: Marks,
    /// Crashed sessions that may explain what is odd in the file, as they were when its header was
    /// read.
    excuses: Vec<SessionWord>,
    /// Below this offset nothing is odd any more, whatever a crash left.
    mended: u64,
    /// Recovery found blocks that cannot be read: what is behind the seal stays unsealed.
    spoiled: bool,
    /// The generation of announcements that the file is in, and the id under which it is there: cut
    /// to nothing, a file gets another.
    announced: Option<(u64, FileId)>,
    /// Everything was mended, and the header does not say so yet.
    outdated: bool,
    /// The header took this session's word, and that may not be durable yet.
    following: bool,
    /// The file is cut below its seal, and is open only to be cut to nothing.
    cut_short: bool,
    /// The last block does not end where the file does: what is there is read, and nothing changed.
    stretched: bool,
}

struct Ready {
    header: FileHeader,
    keys: FileKeys,
    cipher: UnitCipher,
    /// The header is not on the disk yet: it goes out with page 0, before the [`change::Change`] ends
    /// that has made it.
    fresh: bool,
}

/// A run of blocks. Whatever failed, no block outside has anything to be excused for: least of all
/// because a call met tampering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unsure {
    first: Block,
    end: Block,
}

/// What is written but not durable. Outlives the last close, until a sync.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    header: HeaderSlots,
    /// What is known of groups of a file that is not open; while it is, that is in its [`Spills`].
    groups: HashMap<Group, Roles>,
    /// Blocks that held older durable bytes and were partly rewritten since the last sync (R4).
    rewritten: HashSet<Block>,
    /// Bytes below this may have been durable at the last sync.
    durable_size: u64,
    /// Bytes below this were made durable in this session, and nobody here has cut them off since.
    proven_size: u64,
    /// Since when some of them are above the seal.
    above_seal_since: Option<Instant>,
    /// The size at the last close.
    parked_size: u64,
    /// Contents or size changed since the last sync.
    contents_dirty: bool,
    /// Contents or size changed since the last seal, by this daemon.
    unsealed: bool,
    /// What a change of ours that failed half way may have left odd.
    unsure: Option<Unsure>,
    /// Groups whose spill page on the disk says of blocks that they were holes a moment ago.
    filled: BTreeSet<Group>,
    /// A sync failed: nobody knows what is on the disk, so nothing of it is sealed.
    sync_failed: bool,
    /// Pages of contents written since the last sync.
    written: Written,
    /// Those that a sync of this session has made durable.
    synced: Synced,
    /// Those that the page journal has as the last sync made them durable.
    kept: KeptPages,
    /// The disk may have dropped them: they are written again before the next sync counts.
    written_owed: bool,
    /// A write-back that failed, of which no handle was told.
    unreported: Option<Errno>,
    /// As many failed syncs of the whole filesystem as were followed by a sync of this file alone.
    failures: u64,
    generation: u64,
    dirty_since: Option<Instant>,
    /// When the last handle was closed.
    parked_since: Option<Instant>,
    /// The file that all this is about: another one may have got its inode number.
    file: Option<FileId>,
    /// The last page may say another length than the file has.
    end_owed: bool,
    /// The length that the backing file should have and could not be given.
    untold: Option<u64>,
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
        (marks, damaged): (Option<Marks>, Damaged),
    ) -> Result<Self> {
        let errors = WriteErrors::resumed(marks.as_ref().and_then(|marks| marks.unreported));
        let failures = shared.failed_syncs();
        let state = State::new(backing.length()?, &shared.cache, marks, failures);
        let content = Self {
            backing,
            keys,
            shared,
            access,
            errors,
            gate: RwLock::new(()),
            state: RwLock::new(state),
        };
        {
            let mut state = content.write_state();
            match (content.look(&mut state), damaged) {
                (Err(VolumeError::Lost(_) | VolumeError::Tampered(_)), Damaged::Opened) => {
                    state.cut_short = state.ready.take().is_some();
                }
                (looked, _) => looked?,
            }
        }
        Ok(content)
    }

    /// Reads and authenticates what tells that the file is whole.
    fn look(&self, state: &mut State) -> Result<()> {
        match self.load(state) {
            // It never got its first page, and could not be cut to nothing when that failed.
            Err(VolumeError::Lost(_)) if state.marks.untold == Some(0) => {}
            other => other?,
        }
        if state.is_another_file() {
            let failures = self.shared.failed_syncs();
            *state = State::new(self.backing.length()?, &self.shared.cache, None, failures);
            self.errors.forget();
            self.load(state)?;
        }
        state.believe_untold();
        if !state.has_header {
            self.keys.forget();
        }
        if let Err(error) = self.tell_again(state) {
            log::warn!("the length of a file could not be put right: {error}");
        }
        self.check_size(state)?;
        if let Err(error) = self.put_torn_back(state) {
            log::error!("a page that was torn could not be put back: {error}");
        }
        Ok(())
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
        Self::open(backing, keys, shared, access, (None, Damaged::Refused))
    }

    /// The same as a last close and the next open of the inode: what is not durable stays known.
    ///
    /// # Errors
    /// As `open`; nothing is lost then, and it can be tried again.
    pub fn reopen(&self) -> Result<Self> {
        let (backing, keys) = (self.backing.clone(), self.keys.clone());
        let (shared, access) = (self.shared.clone(), self.access);
        Self::open(backing, keys, shared, access, (self.kept_marks(), Damaged::Refused))
    }

    /// True if a write or sync failed in a way that only a look after a crash can settle.
    pub fn in_doubt(&self) -> bool {
        self.shared.in_doubt()
    }

    /// The write-backs that failed, for the handles to be told of.
    pub fn errors(&self) -> &WriteErrors {
        &self.errors
    }

    /// True if nothing can be done with the file but to cut it to nothing.
    pub(super) fn is_damaged(&self) -> bool {
        if self.read_state().ready.is_some() {
            return false;
        }
        let looked = self.load(&mut self.write_state());
        matches!(looked, Err(VolumeError::Lost(_) | VolumeError::Tampered(_)))
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
        state.note_file();
        state.ready = None;
        state.spills.drop_pages();
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
        let mut state = self.change();
        self.ensure_header(&mut state)?;
        self.update_header(&mut state, |header| header.flags.xattrs = true)?;
        self.write_fresh_header(&mut state)?;
        Ok(state.ready.as_ref().map(|ready| ready.keys.xattr_keys()))
    }

    /// What must be remembered when the inode is closed before it was synced.
    pub(super) fn into_marks(self) -> Option<Marks> {
        self.kept_marks()
    }

    /// Leaves nothing in memory that the disk should have, and says what it does not tell.
    fn kept_marks(&self) -> Option<Marks> {
        let mut state = self.write_state();
        self.leave_nothing_owed(&mut state);
        state.note_file();
        state.marks.parked_since = Some(Instant::now());
        state.marks.parked_size = state.size;
        state.marks.unreported = self.errors.unreported();
        state.spills.drop_pages();
        let marks = (!state.marks.is_forgettable()).then(|| state.marks.clone());
        marks.map(|marks| Marks { groups: state.spills.known(), ..marks })
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
}

impl State {
    /// A file of `length` backing bytes, of which `marks` are known; `failures` of the filesystem
    /// do not concern one of which nothing was written yet.
    fn new(length: u64, cache: &Arc<SpillCache>, marks: Option<Marks>, failures: u64) -> Self {
        let (size, valid) = plain_size(length);
        let mut marks =
            marks.unwrap_or_else(|| Marks { durable_size: size, failures, ..Marks::default() });
        Self {
            size,
            untouched: if valid { size } else { u64::MAX },
            has_header: length > 0,
            ready: None,
            spills: Spills::new(cache, std::mem::take(&mut marks.groups)),
            excuses: Vec::new(),
            mended: 0,
            spoiled: false,
            announced: None,
            outdated: false,
            following: false,
            cut_short: false,
            stretched: false,
            marks,
        }
    }

    /// True if what is known is of a file that is no more.
    fn is_another_file(&self) -> bool {
        match (self.marks.file, self.ready.as_ref().map(|ready| ready.header.file)) {
            (None, Some(_)) => self.marks.untold.is_some(),
            (None, None) => false,
            (known, found) => known != found,
        }
    }

    /// Everything up to the end of the file is durable.
    fn prove(&mut self) {
        (self.marks.durable_size, self.marks.proven_size) = (self.size, self.size);
        let sealed = self.ready.as_ref().map_or(u64::MAX, |ready| ready.header.seal.size);
        if self.size > sealed {
            self.marks.above_seal_since.get_or_insert_with(Instant::now);
        }
    }

    /// Takes the length that the backing file could not be given for the one that it has.
    fn believe_untold(&mut self) {
        let Some(length) = self.marks.untold else { return };
        (self.size, self.untouched) = (plain_size(length).0, u64::MAX);
        if length == 0 {
            (self.has_header, self.ready) = (false, None);
        }
    }

    /// Notes which file the marks are of, before its keys go.
    fn note_file(&mut self) {
        if let Some(ready) = &self.ready {
            self.marks.file = Some(ready.header.file);
        }
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

    /// The size that the length of the backing file should tell and does not.
    pub(super) fn untold_size(&self) -> Option<u64> {
        self.untold.map(|length| plain_size(length).0)
    }

    /// True if a call failed, and only a look at the blocks tells what they hold.
    pub(super) fn is_unsure(&self) -> bool {
        self.unsure.is_some() || self.sync_failed
    }

    /// True if a later open needs none of this.
    pub(super) fn is_forgettable(&self) -> bool {
        !self.is_dirty()
            && !self.is_unsure()
            && !self.unsealed
            && self.filled.is_empty()
            && self.untold.is_none()
            && self.unreported.is_none()
    }

    /// Notes that nobody knows what a failed change has left of these blocks.
    fn doubt(&mut self, first: Block, end: Block) {
        let known = self.unsure.unwrap_or(Unsure { first, end });
        self.unsure = Some(Unsure { first: known.first.min(first), end: known.end.max(end) });
    }

    fn touch(&mut self) -> u64 {
        self.generation += 1;
        self.dirty_since.get_or_insert_with(Instant::now);
        self.generation
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
