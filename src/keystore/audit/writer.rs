//! The queue in front of the log, and the thread that empties it.
//!
//! Operations do not wait for the disk: what happened is queued, and written in one transaction
//! with whatever else happened within [`DELAY`]. Where the log is required, they wait until it
//! is durable. Locks: the queue's is never held while the file is written.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::event::{Event, EventTime};
use super::last_use::{LastUse, LastUses};
use super::log::Log;
use super::opens::{FileOpen, First, OpenRecord, Opener};
use super::queue::{Entry, Queue, What};
use super::tail::gap;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;

/// Queue, thread and log.
pub(super) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    log: Log,
    queue: Mutex<Queue>,
    /// There is work for the thread.
    work: Condvar,
    /// An attempt to write has ended.
    written: Condvar,
    records: AtomicU64,
    lost: AtomicU64,
}

impl Writer {
    pub(super) fn new(log: Log) -> Self {
        let shared = Shared {
            log,
            queue: Mutex::default(),
            work: Condvar::new(),
            written: Condvar::new(),
            records: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), thread: Mutex::default() }
    }

    pub(super) fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Queues an event, to be written soon. If the queue is full it is lost, which is counted.
    pub(super) fn push(&self, event: Event) {
        let mut queue = self.shared.lock();
        self.shared.enqueue(&mut queue, event.into());
        self.wake(&mut queue);
    }

    /// Writes an event; it is durable when this returns `Ok`.
    /// Errors: `AuditUnwritable`.
    pub(super) fn write(&self, event: Event) -> Result<(), KeystoreError> {
        self.write_entry(event.into())
    }

    fn write_entry(&self, what: What) -> Result<(), KeystoreError> {
        let mut queue = self.shared.lock();
        let ticket = queue.push(what, true);
        queue.urgent = true;
        self.wake(&mut queue);
        loop {
            if let Some(reason) = queue.refused.remove(&ticket) {
                return Err(KeystoreError::AuditUnwritable(reason));
            }
            if queue.finished >= ticket {
                return Ok(());
            }
            if !queue.running {
                return Err(unwritable(NO_THREAD));
            }
            self.shared.written.wait(&mut queue);
        }
    }

    /// Counts an open of a file. With [`First::Written`] the first in a minute is durable when this
    /// returns.
    /// Errors: `AuditUnwritable`, `Crypto`.
    pub(super) fn count_open(
        &self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
        first: First,
    ) -> Result<(), KeystoreError> {
        let Some(record) = self.counted(opener, open, time, first)? else { return Ok(()) };
        self.write_first(record)
    }

    /// Counts a refusal. The first in a minute is queued at once, or with [`First::Written`]
    /// durable when this returns; it is refused in any case.
    /// Errors: `AuditUnwritable`, `Crypto`.
    pub(super) fn count_refusal(
        &self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
        first: First,
    ) -> Result<(), KeystoreError> {
        match (self.counted(opener, open, time, First::Written)?, first) {
            (None, _) => {}
            (Some(record), First::Counted) => {
                let mut queue = self.shared.lock();
                self.shared.enqueue(&mut queue, record.into());
                self.wake(&mut queue);
            }
            (Some(record), First::Written) => return self.write_first(record),
        }
        Ok(())
    }

    /// Writes the first open of its kind. The next is the first again if that fails, and is refused as
    /// well while it cannot be written.
    fn write_first(&self, record: OpenRecord) -> Result<(), KeystoreError> {
        self.write_entry(record.clone().into())
            .inspect_err(|_| self.shared.lock().opens.forget(&record))
    }

    /// Counts one more of its kind. Returns the record of the first if it is to be written.
    fn counted(
        &self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
        first: First,
    ) -> Result<Option<OpenRecord>, KeystoreError> {
        let mut queue = self.shared.lock();
        let idle = queue.opens.len() == 0;
        let written = queue.opens.count(opener, open, time, first)?;
        let full = queue.opens.len() > OPENS_LIMIT;
        if full {
            self.shared.spill_opens(&mut queue);
        }
        if idle || full {
            self.wake(&mut queue);
        }
        Ok(written)
    }

    /// Notes the use of a key that no event tells of: stored with the next events, or at the end.
    pub(super) fn note_use(&self, key: KeyId, used: LastUse) {
        let mut queue = self.shared.lock();
        queue.uses.insert(key, used);
        if !queue.running {
            self.wake(&mut queue);
        }
    }

    /// Writes everything that is queued, opens too.
    /// Errors: `AuditUnwritable`: it stays queued then.
    pub(super) fn flush(&self) -> Result<(), KeystoreError> {
        let mut queue = self.shared.lock();
        self.shared.spill_opens(&mut queue);
        let (target, failures) = (queue.given, queue.failures);
        if queue.finished >= target && queue.uses.is_empty() {
            return Ok(());
        }
        queue.urgent = true;
        self.wake(&mut queue);
        while queue.running && (queue.finished < target || !queue.uses.is_empty()) {
            if queue.failures > failures {
                return Err(KeystoreError::AuditUnwritable(queue.reason.clone()));
            }
            self.shared.written.wait(&mut queue);
        }
        if queue.finished >= target { Ok(()) } else { Err(unwritable(NO_THREAD)) }
    }

    /// Events that wait to be written.
    pub(super) fn depth(&self) -> usize {
        let queue = self.shared.lock();
        queue.len() + queue.opens.len()
    }

    /// Events that this process wrote, and those that it lost.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.shared.records.load(Ordering::Relaxed), self.shared.lost.load(Ordering::Relaxed))
    }

    /// Wakes the thread, if it sleeps too long otherwise. Starts it before its first work. Many may have
    /// come at once.
    fn wake(&self, queue: &mut Queue) {
        if !queue.running && !queue.closing {
            self.start(queue);
        }
        let due = queue.urgent || queue.len() <= 1 || queue.len() >= BATCH;
        if due {
            self.shared.work.notify_one();
        }
    }

    fn start(&self, queue: &mut Queue) {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("audit".into());
        match thread.spawn(move || shared.run()) {
            Ok(handle) => {
                *self.thread.lock() = Some(handle);
                queue.running = true;
            }
            Err(error) => log::error!("the audit log is not written: no thread: {error}"),
        }
    }
}

impl Drop for Writer {
    /// Writes what is left, and waits for it.
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            self.shared.spill_opens(&mut queue);
            queue.closing = true;
            self.shared.work.notify_one();
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the audit log's thread has panicked: records may be lost");
        }
    }
}

impl Shared {
    fn run(&self) {
        let _running = Running(self);
        while let Some(batch) = self.next() {
            let done = self.store(&batch);
            let failed = done.is_err();
            self.finish(batch, done);
            if failed && !self.pause() {
                return;
            }
        }
    }

    /// Waits for events that are to be written now; `None` when there will be none.
    fn next(&self) -> Option<Vec<Entry>> {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            if queue.opens.next_due().is_some_and(|due| due <= now) {
                let due = queue.opens.take_due(now);
                for record in due {
                    self.enqueue(&mut queue, record.into());
                }
            }
            let age = queue.since().map(|since| now.duration_since(since));
            let full = queue.len() >= BATCH || queue.urgent || queue.closing;
            let uses = !queue.uses.is_empty() && (queue.urgent || queue.closing);
            let pause = match age {
                _ if uses => return Some(queue.take()),
                Some(age) if full || age >= DELAY => return Some(queue.take()),
                Some(age) => Some(DELAY - age),
                None if queue.closing => return None,
                None => queue.opens.next_due().map(|due| due.saturating_duration_since(now)),
            };
            match pause {
                Some(pause) => drop(self.work.wait_for(&mut queue, pause)),
                None => self.work.wait(&mut queue),
            }
        }
    }

    /// Writes a batch, and how many events no record tells of.
    fn store(&self, batch: &[Entry]) -> Result<(), KeystoreError> {
        let now = SystemTime::now();
        let (lost, uses) = {
            let queue = self.lock();
            (queue.lost, queue.uses.clone())
        };
        let noted: Vec<KeyId> = uses.keys().copied().collect();
        let gap = if lost > 0 { Some(lost_records(lost, now)?) } else { None };
        let gap = gap.as_ref().map(Cow::Borrowed);
        let events: Vec<_> = batch.iter().map(Entry::event).chain(gap).collect();
        self.log.append(&events, &LastUses::of(&events, uses), now)?;
        let mut queue = self.lock();
        queue.lost -= lost;
        // Those that came meanwhile are of the same keys: the next use writes them.
        noted.iter().for_each(|key| drop(queue.uses.remove(key)));
        self.records.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Tells those who wait what came of their events. What nobody waits for is tried again.
    fn finish(&self, batch: Vec<Entry>, done: Result<(), KeystoreError>) {
        let mut queue = self.lock();
        queue.written();
        let last = batch.last().map_or(0, Entry::ticket);
        match done {
            Ok(()) => {
                queue.finished = queue.finished.max(last);
                queue.reason.clear();
            }
            Err(error) => {
                let reason = error.to_string();
                if queue.reason != reason {
                    log::error!("the audit log cannot be written: {reason}");
                }
                queue.failures += 1;
                queue.reason = reason;
                self.refuse(&mut queue, batch);
            }
        }
        drop(queue);
        self.written.notify_all();
    }

    fn refuse(&self, queue: &mut Queue, batch: Vec<Entry>) {
        let (durable, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(Entry::is_durable);
        for entry in &durable {
            queue.refused.insert(entry.ticket(), queue.reason.clone());
        }
        self.lose(queue, durable.len() as u64);
        if queue.closing {
            self.lose(queue, rest.len() as u64);
            queue.uses.clear();
            return;
        }
        queue.give_back(rest);
    }

    /// Queues what nobody waits for. If the queue is full it is lost, which is counted.
    fn enqueue(&self, queue: &mut Queue, what: What) {
        if queue.is_full() {
            self.lose(queue, what.count());
        } else {
            queue.push(what, false);
        }
    }

    fn spill_opens(&self, queue: &mut Queue) {
        for record in queue.opens.take_all() {
            self.enqueue(queue, record.into());
        }
    }

    fn lose(&self, queue: &mut Queue, count: u64) {
        if count == 0 {
            return;
        }
        // Once for each time that it begins: the log must not fill the disk as well.
        if queue.lost == 0 {
            log::error!("audit records are being lost");
        }
        queue.lost += count;
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// After a failure: waits a moment, or until somebody asks. `false` if it was the last attempt.
    fn pause(&self) -> bool {
        let mut queue = self.lock();
        if queue.closing {
            return false;
        }
        if !queue.urgent {
            self.work.wait_for(&mut queue, RETRY);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }
}

/// Says so when the thread ends, in whatever way: nobody waits for it any longer then.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running = false;
        self.0.written.notify_all();
    }
}

fn lost_records(count: u64, now: SystemTime) -> Result<Event, KeystoreError> {
    let mut lost = gap(now)?;
    lost.result = "RecordsLost".into();
    lost.count = count;
    lost.detail = Some("events could not be written and are lost".into());
    Ok(lost)
}

fn unwritable(reason: &str) -> KeystoreError {
    KeystoreError::AuditUnwritable(reason.to_owned())
}

/// How long an event waits for others to be written with.
const DELAY: Duration = Duration::from_millis(200);
/// So many do not wait.
const BATCH: usize = 256;
/// So many kinds of opens are counted in memory: what a map of 2^14 places takes.
const OPENS_LIMIT: usize = 14_336;
const NO_THREAD: &str = "its thread does not run";
const RETRY: Duration = Duration::from_secs(1);
