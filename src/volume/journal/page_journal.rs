//! The page journal: pages as they were, durably, before they are written over.
//!
//! The format assumes that a page is written whole (FORMAT section 11.1). Where that is not so, on a
//! filesystem with blocks below 4096 bytes or a disk that tears, a page with durable bytes that is
//! being written over could be neither the old one nor the new one after a power cut. So the old one
//! goes to a file of the session first, and is durable there before the write begins. A page needs
//! that once between two syncs of its file: the version that the last sync made durable is the one
//! that must not be lost. A page that did not exist then needs none.
//!
//! **Crash order.** (a) Before the record is durable: the page in its place is untouched. (b) After
//! that, until a sync of the file: the page in its place is the old one, the new one, or torn; a torn
//! one is not authentic, and the record has the old one. (c) After the sync: the page in its place
//! is the new one, so nobody asks for the record. (d) The room of records is used again, from the
//! start of a file, once no file needs any of them; so whatever a crash leaves of new records over
//! old ones, none is needed but new ones, and those are durable. Numbers that go up tell them apart:
//! a new record is followed by an old one only with a lower number. (e) While pages are put back,
//! the journal stays as it is until that is durable: a second crash finds it again, and pages that
//! the second session wrote over in its own journal, which counts first. (f) A record that is torn
//! itself was not durable, so (a) holds for its page, and it ends its file: nothing is behind it.
//!
//! Two files take turns. Records go to one; when it has become long, the other is used from its
//! start as soon as nobody needs what is in it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::envelope::UndoRecord;
use crate::envelope::layout::PageNo;
use crate::id::FileId;
use crate::volume::backing::contents::{Backing, Durability};

/// Bytes after which the other file is used, if nobody needs it.
const LONG: u64 = 16 << 20;
/// Bytes after which the volume syncs whoever needs records.
const FULL: u64 = 64 << 20;
/// Bytes that a journal has at most; what is behind is never looked at.
pub(in crate::volume) const MOST: u64 = 1 << 30;
/// Bytes that are kept when a file is used from its start again.
const SPARE: u64 = 4 << 20;

/// One page that is about to be written over, from byte `start` of it to its end.
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
}

struct Inner {
    parts: [Part; 2],
    current: usize,
    /// Of the next record.
    sequence: u64,
    /// Somebody syncs the current part, without the lock.
    syncing: bool,
    failures: u64,
    failure: Errno,
}

struct Part {
    file: Arc<dyn Backing>,
    /// Where the next record goes.
    end: u64,
    /// What is durable: bytes, and the number of the next record then.
    durable: (u64, u64),
    use_: Arc<Use>,
}

/// Who needs records of a part.
#[derive(Debug, Default)]
struct Use {
    holds: AtomicUsize,
    /// Files that nobody knows any more needed some, and only a sync of everything ends that.
    orphaned: AtomicBool,
}

/// Some file needs records of a part, until a sync of it.
#[derive(Debug)]
struct Hold {
    part: Arc<Use>,
    released: AtomicBool,
}

/// The pages of one file that are in the journal, since its last sync.
#[derive(Debug, Clone, Default)]
pub(in crate::volume) struct KeptPages {
    pages: HashSet<u64>,
    holds: Vec<Arc<Hold>>,
}

impl PageJournal {
    /// A journal in two empty files.
    pub fn over(files: [Arc<dyn Backing>; 2]) -> Self {
        let part = |file| Part { file, end: 0, durable: (0, 1), use_: Arc::default() };
        let inner = Inner {
            parts: files.map(part),
            current: 0,
            sequence: 1,
            syncing: false,
            failures: 0,
            failure: Errno::IO,
        };
        Self { inner: Mutex::new(inner), synced: Condvar::new() }
    }

    /// Makes these pages of a file durable as they are. Whoever comes while another one waits for
    /// the disk shares the next sync.
    ///
    /// # Errors
    /// `NOSPC`, `IO`: none of the pages may be written over.
    pub(in crate::volume) fn keep(
        &self,
        file: FileId,
        pages: &[OldPage<'_>],
        kept: &mut KeptPages,
    ) -> Result<(), Errno> {
        let mut inner = self.lock();
        inner.make_room();
        let first = inner.sequence;
        let mut bytes = Vec::new();
        for (sequence, old) in (first..).zip(pages) {
            UndoRecord::append(&mut bytes, sequence, (file, old.page, old.start), old.bytes);
        }
        let hold = inner.append(&bytes, pages.len() as u64)?;
        let goal = inner.sequence;
        let durable = self.wait_until_durable(inner, goal);
        match durable {
            Ok(()) => kept.add(hold, pages),
            Err(_) => hold.release(),
        }
        durable
    }

    fn wait_until_durable(&self, inner: MutexGuard<'_, Inner>, goal: u64) -> Result<(), Errno> {
        let mut inner = inner;
        let failures = inner.failures;
        loop {
            if inner.failures != failures {
                return Err(inner.failure);
            }
            if inner.part().durable.1 >= goal {
                return Ok(());
            }
            if inner.syncing {
                inner = self.synced.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            inner.syncing = true;
            let (file, reached) = (inner.part().file.clone(), (inner.part().end, inner.sequence));
            drop(inner);
            let synced = file.sync(Durability::Contents);
            inner = self.lock();
            inner.syncing = false;
            match synced {
                Ok(()) => inner.part_mut().durable = reached,
                Err(error) => inner.take_back(error),
            }
            self.synced.notify_all();
        }
    }

    /// True if it has become long, and files need records of both parts: they should be synced.
    pub(in crate::volume) fn is_full(&self) -> bool {
        let inner = self.lock();
        inner.part().end > FULL && !inner.other().is_idle()
    }

    /// Before a sync of everything: what [`Orphans::settle`] ends if it succeeds.
    pub(in crate::volume) fn orphans(&self) -> Orphans {
        let inner = self.lock();
        let take = |part: &Part| {
            let orphaned = part.use_.orphaned.swap(false, Ordering::AcqRel);
            orphaned.then(|| part.use_.hold())
        };
        Orphans(inner.parts.iter().filter_map(take).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records that files needed which nobody knows any more. Dropped, they are needed still.
pub(in crate::volume) struct Orphans(Vec<Hold>);

impl Orphans {
    /// Everything is durable.
    pub(in crate::volume) fn settle(self) {
        self.0.iter().for_each(Hold::release);
    }
}

impl Inner {
    fn part(&self) -> &Part {
        let [first, second] = &self.parts;
        if self.current == 0 { first } else { second }
    }

    fn part_mut(&mut self) -> &mut Part {
        let [first, second] = &mut self.parts;
        if self.current == 0 { first } else { second }
    }

    fn other(&self) -> &Part {
        let [first, second] = &self.parts;
        if self.current == 0 { second } else { first }
    }

    /// Begins a part anew if nobody needs what is in it.
    fn make_room(&mut self) {
        let busy = self.syncing || self.part().durable.0 < self.part().end;
        if busy {
            return;
        }
        if !self.part().is_idle() {
            if self.part().end < LONG || !self.other().is_idle() {
                return;
            }
            self.current = 1 - self.current;
        }
        let sequence = self.sequence;
        let part = self.part_mut();
        if part.end > SPARE {
            // It costs room and nothing else if that fails.
            let _ = part.file.set_length(0);
        }
        (part.end, part.durable) = (0, (0, sequence));
    }

    fn append(&mut self, bytes: &[u8], records: u64) -> Result<Hold, Errno> {
        let part = self.part_mut();
        let end = part.end + bytes.len() as u64;
        if end > MOST || part.file.write_at(bytes, part.end)? < bytes.len() {
            return Err(Errno::NOSPC);
        }
        part.end = end;
        let hold = part.use_.hold();
        self.sequence += records;
        Ok(hold)
    }

    /// A sync failed: nobody knows what is there of what was written since the last one. It is
    /// written over, so that the next sync has all of it to do. No number is used twice.
    fn take_back(&mut self, error: Errno) {
        self.failures += 1;
        self.failure = error;
        let part = self.part_mut();
        part.end = part.durable.0;
    }
}

impl Part {
    fn is_idle(&self) -> bool {
        self.use_.holds.load(Ordering::Acquire) == 0 && !self.use_.orphaned.load(Ordering::Acquire)
    }
}

impl Use {
    fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Hold { part: self.clone(), released: AtomicBool::new(false) }
    }
}

impl Hold {
    fn release(&self) {
        self.released.store(true, Ordering::Release);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The file was removed, or cut to nothing, and that may not be durable.
        if !self.released.load(Ordering::Acquire) {
            self.part.orphaned.store(true, Ordering::Release);
        }
        self.part.holds.fetch_sub(1, Ordering::AcqRel);
    }
}

impl KeptPages {
    /// True if the page is in the journal as the last sync made it durable.
    pub(in crate::volume) fn has(&self, page: PageNo) -> bool {
        self.pages.contains(&page.0)
    }

    /// True if the file needs records.
    pub(in crate::volume) fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// A sync of the file has made everything durable.
    pub(in crate::volume) fn release(&mut self) {
        self.pages.clear();
        self.holds.drain(..).for_each(|hold| hold.release());
    }

    fn add(&mut self, hold: Hold, pages: &[OldPage<'_>]) {
        self.pages.extend(pages.iter().map(|old| old.page.0));
        if self.holds.iter().any(|known| Arc::ptr_eq(&known.part, &hold.part)) {
            hold.release();
        } else {
            self.holds.push(Arc::new(hold));
        }
    }
}

impl std::fmt::Debug for PageJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageJournal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
