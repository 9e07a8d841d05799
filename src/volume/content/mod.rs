//! The contents of one file: plaintext in, backing pages out, in an order that a crash cannot hurt.
//!
//! Everything that changes size or contents, by whatever handle or path it comes, goes through the
//! one [`Content`] of its inode. Lock order: `gate`, then `state`, then the cache of spill pages.
//! A writer holds `gate` shared and `state` exclusively; a reader holds `state` shared; a sync holds
//! `gate` exclusively while the disk works, so that no spill page changes under it (R2b) while
//! readers go on. FORMAT section 11 has the crash argument of every step.
//!
//! What is known of a file stands in types that know nothing of [`Content`], each with its rule and
//! its tests: `durability` (which copy of a pair a crash leaves), `pages` (blocks in memory, and how
//! they go out), `spill::SpillCache`, `header::HeaderSlots`, `marks` (what is not durable). On them
//! stand the verbs: `open`, `read`, `write`, `resize`, `holes`, `seek`; `durable` syncs and seals,
//! `recover` looks through a file after a crash.

mod change;
mod durability;
mod durable;
mod excuses;
mod header;
mod holes;
mod journaling;
mod length;
mod marks;
mod open;
mod pages;
mod read;
mod recover;
mod resize;
mod seek;
mod shared;
mod spill;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::crypto::secret::Secret;
use crate::envelope::layout::plain_size;
use crate::envelope::{FileHeader, FileKeys, Recipient, SessionWord, UnitCipher};
use crate::id::FileId;

use crate::volume::backing::contents::Backing;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::errseq::WriteErrors;
use spill::{SpillCache, Spills};

pub use holes::Reserve;
pub(in crate::volume) use marks::Marks;
pub use recover::{Mended, SealEffort};
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

    /// The header that was unwrapped is authentic: the file is what it says.
    fn opened(&self, header: &FileHeader) {
        let _ = header;
    }

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

/// Whether a file that could be changed may be (chattr(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutability {
    /// It may.
    Mutable,
    /// It may not, until its owner says so.
    Frozen,
}

/// The contents of one inode.
pub struct Content {
    backing: Arc<dyn Backing>,
    keys: Arc<dyn KeySource>,
    shared: Arc<Shared>,
    access: Access,
    /// Nothing may change for now: set and taken back under `gate` and `state`.
    frozen: AtomicBool,
    errors: WriteErrors,
    gate: RwLock<()>,
    state: RwLock<State>,
}

struct State {
    size: u64,
    /// No group that begins at or behind this offset was ever written: its spill page need not be
    /// looked for.
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
    /// The generation in which the file is announced, and its id there: a file that is cut to nothing
    /// gets another.
    announced: Option<(u64, FileId)>,
    /// Everything was mended, and the header does not say so yet.
    outdated: bool,
    /// The header took this session's word, and that may not be durable yet.
    following: bool,
    /// The file is cut below its seal, and is open only to be cut to nothing.
    cut_short: bool,
    /// The last block does not end where the file does: the file can be read, but not changed.
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

impl Content {
    /// True if a write or sync failed so that only recovery can tell what the disk holds.
    pub fn in_doubt(&self) -> bool {
        self.shared.in_doubt()
    }

    /// The write-backs that failed, for the handles to be told of.
    pub fn errors(&self) -> &WriteErrors {
        &self.errors
    }

    /// The plaintext size in bytes.
    pub fn size(&self) -> u64 {
        self.read_state().size
    }

    /// The header's claims as they were authenticated, if the file has one and its keys are here.
    pub fn header(&self) -> Option<FileHeader> {
        self.read_state().ready.as_ref().map(|ready| ready.header.clone())
    }

    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read()
    }

    // No step leaves the state half changed on a panic.
    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }
}

impl State {
    /// A file of `length` backing bytes, of which `marks` are known; `failures` of the filesystem do
    /// not concern a file of which nothing was written yet.
    fn new(length: u64, cache: &Arc<SpillCache>, marks: Option<Marks>, failures: u64) -> Self {
        let (size, valid) = plain_size(length);
        let mut marks = marks.unwrap_or_else(|| Marks::found(size, failures));
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
        self.marks.are_of_another(self.ready.as_ref().map(|ready| ready.header.file))
    }

    /// Everything up to the end of the file is durable.
    fn prove(&mut self) {
        let sealed = self.ready.as_ref().map(|ready| ready.header.seal.size);
        self.marks.extent.prove(self.size, sealed);
    }

    /// Believes the backing length that could not be set, in place of the one that is there.
    fn believe_owed_length(&mut self) {
        let Some(length) = self.marks.owed_length else { return };
        (self.size, self.untouched) = (plain_size(length).0, u64::MAX);
        if length == 0 {
            (self.has_header, self.ready) = (false, None);
        }
    }

    /// Notes which file the marks are of, before its keys go.
    fn note_file(&mut self) {
        if let Some(ready) = &self.ready {
            self.marks.note_file(ready.header.file);
        }
    }

    fn ready(&self) -> Result<&Ready> {
        self.ready.as_ref().ok_or(VolumeError::Lost("file header"))
    }

    fn sparse(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.header.flags.sparse)
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
