//! The page journal: pages as they were, durably, before they are written over.
//!
//! The format assumes that a page is written whole (FORMAT section 11.1). Where that is not so, on a
//! filesystem with blocks below 4096 bytes or a disk that tears, a page with durable bytes that is
//! being written over could be neither the old one nor the new one after a power cut. So the old one
//! goes to a file of the session first, and is durable there before the write begins. A page needs
//! that once between two syncs of its file: the version that the last sync made durable is the one
//! that must not be lost.
//!
//! **Invariant.** At every moment, for every page that a power cut could tear: the newest record of it
//! that a reader would find, in the newest session that has one, is what a sync made durable last, or
//! was written later; if no sync left anything there, it says that, or there is none. A record is good
//! from when it is durable until the next sync of its file. Nothing takes it out of the journal then,
//! so until its room is used again it is *stale*: the page in its place is whole, and nobody asks for
//! it. That holds for as long as every later write of the page is preceded by a record of its own.
//!
//! - *Written over*: a record, unless there is one since the last sync.
//! - *Cut off, or a hole punched, and written again*: what is there is not durable, and needs no record
//!   for its own sake. But a stale one would be taken for it, and bytes that were deleted durably would
//!   come back. So a page that may have a record, in this session's journal ([`PageJournal::last_page`])
//!   or in one that a crash left, gets one that says "nothing" ([`OldPage`] without bytes).
//! - The same before the cut is durable: if the page has a record since the last sync, that stays the
//!   newest, because the cut may be lost and the page torn. If it has none, the page in its place is
//!   whole for as long as the cut may be lost.
//! - *Written over while the whole filesystem is synced*: nobody waits for that, so what the sync makes
//!   durable may be newer than the record. From its beginning on the next write needs a record of its
//!   own ([`JournaledPages::turn`]), and where a cut came in between, a sync of the file first.
//! - *Removed, renamed over, cut to nothing*: the next file has another id. A file that keeps its key
//!   when it is cut to nothing keeps its id, and is one that was cut.
//! - *A crash, and recovery that is interrupted*: a page that is put back counts as one with a record
//!   until it is durable ([`JournaledPages::note_put_back`]): the journal of the crash has it. That journal
//!   stays until everything is durable, and every session until then has a journal of its own, which
//!   counts first. The same is so of the journal of a crash that is withheld, for as long as it is.
//!
//! **Crash order.** (a) Before the record is durable: the page in its place is untouched. (b) After
//! that, until a sync of the file: the page in its place is the old one, the new one, or torn; a torn
//! one is not authentic, and the record has the old one. (c) After the sync: the page in its place
//! is the new one, so nobody asks for the record. (d) The room of records is used again, from the
//! start of a file, once no file needs any of them; so whatever a crash leaves of new records over
//! old ones, none is needed but new ones, and those are durable. Numbers that go up tell them apart:
//! a new record is followed by an old one only with a lower number. Until the first new one is durable
//! a crash may leave all of the old ones. (e) A record that is torn itself was not durable, so (a)
//! holds for its page, and it ends its file: nothing is behind it.
//!
//! **Room.** Two files take turns. Records go to one; when it is long, the other is used from its
//! start if nobody needs what is in it. If somebody does, whoever changes a file syncs that file first
//! and then waits, without a lock, until the background has synced the others
//! ([`PageJournal::wait_for_room`]). Nobody waits for long: after that, and for a change that is under
//! way, the journal grows, up to a limit that only a disk that fails can reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::io::Errno;

use super::holds::{Bell, Hold, JournaledPages, Orphans, Use};
use super::record_file::RecordFile;
use crate::envelope::UndoRecord;
use crate::envelope::layout::PageNo;
use crate::id::FileId;
use crate::volume::backing::contents::Backing;

/// Records after which the other file is used, if nobody needs it: 16 MiB at most.
const LONG: u64 = 4096;
/// Records that a file has at most. All readers look at all of them.
const MOST: u64 = 1 << 16;
/// Bytes that are kept when a file is used from its start again.
const SPARE: u64 = 4 << 20;
/// How long a change waits at most until files are synced that need records.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same when the journal is nearly full: a slow disk is not a full one.
const LAST_PATIENCE: Duration = Duration::from_secs(60);

/// One page that is about to be written over, from byte `start` of it to its end; without bytes, one
/// of which nothing is durable.
#[derive(Debug, Clone, Copy)]
pub(in crate::volume) struct OldPage<'a> {
    pub(in crate::volume) page: PageNo,
    pub(in crate::volume) start: usize,
    pub(in crate::volume) bytes: &'a [u8],
}

/// The journal of the present session.
pub struct PageJournal {
    inner: Mutex<Inner>,
    synced: Condvar,
    freed: Arc<Bell>,
    /// Somebody syncs in the background what needs records.
    attended: AtomicBool,
}

struct Inner {
    parts: [Part; 2],
    current: Which,
    /// Of the next record.
    sequence: u64,
    /// The value of `sequence` when [`PageJournal::give_back`] was last called.
    seen: u64,
    /// The disk took no more, and nothing was given back since.
    cramped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    First,
    Second,
}

struct Part {
    file: Arc<dyn RecordFile>,
    written: Reach,
    durable: Reach,
    /// Bytes that it has on the disk, as far as is known.
    room: u64,
    use_: Arc<Use>,
    /// Somebody syncs it, without the lock.
    syncing: bool,
    failures: u64,
    failure: Errno,
    /// Of each file the last page that there may be a record of, since it was begun anew.
    pages: HashMap<FileId, u64>,
    /// And from before: a crash leaves those until the first new record is durable.
    stale: HashMap<FileId, u64>,
}

/// How far a file goes.
#[derive(Debug, Clone, Copy)]
struct Reach {
    bytes: u64,
    records: u64,
    /// The number of the next record.
    sequence: u64,
}

impl PageJournal {
    /// A journal in two empty files.
    pub fn over(files: [Arc<dyn Backing>; 2]) -> Self {
        Self::of(files.map(|file| Arc::new(file) as Arc<dyn RecordFile>))
    }

    /// The same, whatever the files are.
    pub(in crate::volume) fn of(files: [Arc<dyn RecordFile>; 2]) -> Self {
        let freed = Arc::<Bell>::default();
        let inner = Inner {
            parts: files.map(|file| Part::new(file, &freed)),
            current: Which::First,
            sequence: 1,
            seen: 1,
            cramped: false,
        };
        let (inner, synced) = (Mutex::new(inner), Condvar::new());
        Self { inner, synced, freed, attended: AtomicBool::new(false) }
    }

    /// Makes these pages of a file durable as they are. Whoever comes while another one waits for
    /// the disk shares the next sync. `generation` is that of the file.
    ///
    /// # Errors
    /// `NOSPC`, `IO`: none of the pages may be written over.
    pub(in crate::volume) fn record(
        &self,
        (file, inode): (FileId, u64),
        generation: u64,
        pages: &[OldPage<'_>],
        journaled: &mut JournaledPages,
    ) -> Result<(), Errno> {
        let mut inner = self.lock();
        inner.make_room();
        let mut bytes = Vec::new();
        for (sequence, old) in (inner.sequence..).zip(pages) {
            let at = (old.page, old.start);
            UndoRecord::append(&mut bytes, sequence, (file, inode), at, old.bytes);
        }
        let which = inner.current;
        let hold = inner.append(&bytes, file, pages)?;
        let goal = inner.sequence;
        let durable = self.wait_until_durable(inner, which, goal);
        match durable {
            Ok(()) => journaled.add(hold, generation, pages.iter().map(|old| old.page)),
            Err(_) => hold.release(),
        }
        durable
    }

    /// The last page of a file that a crash could leave a record of, whatever became of the page
    /// since; `None` if there is none.
    pub(in crate::volume) fn last_page(&self, file: FileId) -> Option<PageNo> {
        let inner = self.lock();
        let known = inner.parts.iter().flat_map(|part| [&part.pages, &part.stale]);
        known.filter_map(|pages| pages.get(&file)).max().copied().map(PageNo)
    }

    fn wait_until_durable(
        &self,
        inner: MutexGuard<'_, Inner>,
        which: Which,
        goal: u64,
    ) -> Result<(), Errno> {
        let mut inner = inner;
        let failures = inner.part(which).failures;
        loop {
            let part = inner.part(which);
            if part.failures != failures {
                return Err(part.failure);
            }
            if part.durable.sequence >= goal {
                return Ok(());
            }
            if part.syncing {
                self.synced.wait(&mut inner);
                continue;
            }
            part.syncing = true;
            let (file, reached) = (part.file.clone(), part.written);
            drop(inner);
            let synced = file.sync();
            inner = self.lock();
            inner.part(which).synced(reached, synced);
            self.synced.notify_all();
        }
    }

    /// True if records have nowhere to go but behind others, because files need those of both parts:
    /// they should be synced.
    pub(in crate::volume) fn is_pressed(&self) -> bool {
        self.lock().is_pressed()
    }

    /// True if the disk took no more since room was made last.
    pub(in crate::volume) fn is_cramped(&self) -> bool {
        self.lock().cramped
    }

    /// Waits until records have room, if somebody makes it; not for long, and in vain if a file cannot
    /// be synced. *Locks*: the caller holds none of a file.
    pub(in crate::volume) fn wait_for_room(&self) {
        let done = || !self.attended.load(Ordering::Acquire) || !self.is_pressed();
        let records = self.lock().parts().0.written.records;
        self.freed.wait(if records < MOST / 2 { PATIENCE } else { LAST_PATIENCE }, done);
    }

    /// From now on, or no longer, somebody syncs in the background what needs records.
    pub(in crate::volume) fn attend(&self, attended: bool) {
        self.attended.store(attended, Ordering::Release);
        self.freed.ring();
    }

    /// Gives back what a burst took of the disk, when nobody has needed it for a while.
    pub(in crate::volume) fn give_back(&self) {
        let mut inner = self.lock();
        let quiet = inner.seen == inner.sequence;
        inner.seen = inner.sequence;
        let sequence = inner.sequence;
        for part in inner.parts.iter_mut().filter(|part| quiet && part.use_.is_idle()) {
            if part.room > SPARE {
                part.begin_anew(sequence);
            }
        }
    }

    /// Before a sync of everything: what [`Orphans::release`] ends if it succeeds.
    pub(in crate::volume) fn orphans(&self) -> Orphans {
        let inner = self.lock();
        Orphans(inner.parts.iter().filter_map(|part| part.use_.adopt_orphans()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

impl Inner {
    fn part(&mut self, which: Which) -> &mut Part {
        let [first, second] = &mut self.parts;
        match which {
            Which::First => first,
            Which::Second => second,
        }
    }

    fn parts(&self) -> (&Part, &Part) {
        let [first, second] = &self.parts;
        match self.current {
            Which::First => (first, second),
            Which::Second => (second, first),
        }
    }

    fn is_pressed(&self) -> bool {
        let (current, other) = self.parts();
        let busy = [current, other].map(|part| !part.use_.is_idle());
        match self.cramped {
            true => busy.contains(&true),
            false => current.written.records >= LONG && busy == [true, true],
        }
    }

    /// Restarts a part that no file needs. A thread that waits for its sync needs it too, so none is
    /// waiting here.
    fn make_room(&mut self) {
        let (current, other) = self.parts();
        let long = self.cramped || current.written.records >= LONG;
        match (current.use_.is_idle(), other.use_.is_idle()) {
            // On a full disk there is room where records were.
            (true, true) if self.cramped && other.room > current.room => self.take_turns(),
            (true, _) => {}
            (false, true) if long => self.take_turns(),
            (false, _) => return,
        }
        let (sequence, current) = (self.sequence, self.current);
        self.part(current).begin_anew(sequence);
    }

    fn take_turns(&mut self) {
        self.current = match self.current {
            Which::First => Which::Second,
            Which::Second => Which::First,
        };
    }

    fn append(&mut self, bytes: &[u8], file: FileId, pages: &[OldPage<'_>]) -> Result<Hold, Errno> {
        let (sequence, current) = (self.sequence + pages.len() as u64, self.current);
        let appended = self.part(current).append(bytes, file, (pages, sequence));
        self.cramped = matches!(appended, Err(Errno::NOSPC | Errno::DQUOT));
        // No number is used twice: a record that failed may be there all the same.
        self.sequence = sequence;
        appended
    }
}

impl Part {
    fn new(file: Arc<dyn RecordFile>, freed: &Arc<Bell>) -> Self {
        let nothing = Reach { bytes: 0, records: 0, sequence: 1 };
        Self {
            file,
            written: nothing,
            durable: nothing,
            room: 0,
            use_: Use::new(freed.clone()),
            syncing: false,
            failures: 0,
            failure: Errno::IO,
            pages: HashMap::new(),
            stale: HashMap::new(),
        }
    }

    fn begin_anew(&mut self, sequence: u64) {
        // It costs room and nothing else if that fails.
        if self.room > SPARE && self.file.set_length(0).is_ok() {
            self.room = 0;
        }
        for (file, last) in self.pages.drain() {
            note(&mut self.stale, file, last);
        }
        self.written = Reach { bytes: 0, records: 0, sequence };
        self.durable = self.written;
    }

    fn append(
        &mut self,
        bytes: &[u8],
        file: FileId,
        (pages, sequence): (&[OldPage<'_>], u64),
    ) -> Result<Hold, Errno> {
        let records = self.written.records + pages.len() as u64;
        // What fails may be there in part, behind what counts.
        let last = pages.iter().map(|old| old.page.0).max().unwrap_or(0);
        note(&mut self.pages, file, last);
        if records > MOST || self.file.write_at(bytes, self.written.bytes)? < bytes.len() {
            return Err(Errno::NOSPC);
        }
        let bytes = self.written.bytes + bytes.len() as u64;
        self.written = Reach { bytes, records, sequence };
        self.room = bytes.max(self.room);
        Ok(self.use_.hold())
    }

    /// A sync has ended that began when the file reached so far.
    ///
    /// If it failed, nobody knows what is there of what was written since the last one. That is
    /// written over, so that the next sync has all of it to do.
    fn synced(&mut self, reached: Reach, synced: Result<(), Errno>) {
        self.syncing = false;
        match synced {
            Ok(()) => {
                self.durable = reached;
                // A record with a higher number is before what the file held earlier.
                self.stale.clear();
            }
            Err(error) => {
                self.failures += 1;
                self.failure = error;
                self.written = self.durable;
            }
        }
    }
}

fn note(pages: &mut HashMap<FileId, u64>, file: FileId, last: u64) {
    let known = pages.entry(file).or_insert(last);
    *known = last.max(*known);
}

impl std::fmt::Debug for PageJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageJournal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
