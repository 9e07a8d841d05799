//! Who needs records of the page journal, and until when.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::envelope::layout::PageNo;

/// Who needs records of one file of the journal.
#[derive(Debug)]
pub(super) struct Use {
    holds: AtomicUsize,
    /// Files that nobody knows any more needed some, and only a sync of everything ends that.
    orphaned: AtomicBool,
    freed: Arc<Bell>,
}

/// Rings when somebody needs records no more.
#[derive(Debug, Default)]
pub(super) struct Bell {
    lock: Mutex<()>,
    rung: Condvar,
}

/// Some file needs records, until a sync of it.
#[derive(Debug)]
pub(super) struct Hold {
    part: Arc<Use>,
    released: AtomicBool,
}

/// The pages of one file that are in the journal as the last sync made them durable.
#[derive(Debug, Clone, Default)]
pub(in crate::volume) struct JournaledPages {
    /// Each with the generation of the file that it was written over in.
    pages: HashMap<u64, u64>,
    /// What is in the journal from before this generation may be older than what is durable: a sync
    /// of the whole filesystem has begun there.
    turn: u64,
    /// There may be some from before it.
    doubtful: bool,
    holds: Vec<Arc<Hold>>,
}

/// Records that files needed which nobody knows any more. Dropped, they are needed still.
pub(in crate::volume) struct Orphans(pub(super) Vec<Hold>);

impl Use {
    pub(super) fn new(freed: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { holds: AtomicUsize::new(0), orphaned: AtomicBool::new(false), freed })
    }

    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::AcqRel);
        Hold { part: self.clone(), released: AtomicBool::new(false) }
    }

    /// True if nobody needs any record.
    pub(super) fn is_idle(&self) -> bool {
        self.holds.load(Ordering::Acquire) == 0 && !self.orphaned.load(Ordering::Acquire)
    }

    /// Takes over what orphans needed, if there are any.
    pub(super) fn adopt_orphans(self: &Arc<Self>) -> Option<Hold> {
        self.orphaned.swap(false, Ordering::AcqRel).then(|| self.hold())
    }
}

impl Bell {
    pub(super) fn ring(&self) {
        drop(self.lock.lock());
        self.rung.notify_all();
    }

    /// Waits until it rings and `done` is true, or for `most`.
    pub(super) fn wait(&self, most: Duration, done: impl Fn() -> bool) {
        let end = Instant::now() + most;
        let mut turn = self.lock.lock();
        while !done() {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            self.rung.wait_for(&mut turn, left);
        }
    }
}

impl Hold {
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The file was removed, or cut to nothing, and that may not be durable.
        if !self.released.load(Ordering::Acquire) {
            self.part.orphaned.store(true, Ordering::Release);
        }
        if self.part.holds.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.part.freed.ring();
        }
    }
}

impl Orphans {
    /// Everything is durable.
    pub(in crate::volume) fn release(self) {
        self.0.iter().for_each(Hold::release);
    }
}

impl JournaledPages {
    /// True if the page is in the journal as the last sync made it durable.
    pub(in crate::volume) fn has(&self, page: PageNo) -> bool {
        self.pages.get(&page.0).is_some_and(|at| *at >= self.turn)
    }

    /// True if a page from `first` on is in the journal, and a sync of the whole filesystem that has
    /// begun since may make something else durable, or nothing.
    pub(in crate::volume) fn is_doubtful_from(&self, first: PageNo) -> bool {
        self.doubtful && self.pages.iter().any(|(page, at)| *page >= first.0 && *at < self.turn)
    }

    /// True if this page is such a one.
    pub(in crate::volume) fn is_doubtful(&self, page: PageNo) -> bool {
        self.pages.get(&page.0).is_some_and(|at| *at < self.turn)
    }

    /// True if the file needs records.
    pub(in crate::volume) fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// A sync of the whole filesystem begins, and the file is at this generation.
    pub(in crate::volume) fn turn(&mut self, generation: u64) {
        self.turn = generation;
        self.doubtful = !self.pages.is_empty();
    }

    /// Everything that was written until this generation is durable, and more was written since.
    pub(in crate::volume) fn forget_before(&mut self, generation: u64) {
        self.pages.retain(|_, at| *at >= generation);
        self.doubtful = self.pages.values().any(|at| *at < self.turn);
    }

    /// A sync of the file has made everything durable.
    pub(in crate::volume) fn release(&mut self) {
        self.pages.clear();
        self.doubtful = false;
        self.holds.drain(..).for_each(|hold| hold.release());
    }

    /// This page is in the journal of a session that crashed, and in its place it is not.
    pub(in crate::volume) fn note_put_back(&mut self, page: PageNo, generation: u64) {
        self.pages.insert(page.0, generation);
    }

    pub(super) fn add(&mut self, hold: Hold, generation: u64, pages: impl Iterator<Item = PageNo>) {
        self.pages.extend(pages.map(|page| (page.0, generation)));
        if self.holds.iter().any(|known| Arc::ptr_eq(&known.part, &hold.part)) {
            hold.release();
        } else {
            self.holds.push(Arc::new(hold));
        }
    }
}
