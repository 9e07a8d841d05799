//! What is to be written to the log, in order, and who waits for it.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::event::Event;
use super::last_use::LastUse;
use super::opens::{OpenRecord, Opens};
use crate::id::KeyId;

/// The state that the log's thread shares with everybody else.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Entry>,
    /// How many are being written; if that fails, they wait again.
    writing: usize,
    /// When the first of `waiting` came.
    since: Option<Instant>,
    pub(super) opens: Opens,
    /// The last uses of keys that no event tells of.
    pub(super) uses: HashMap<KeyId, LastUse>,
    /// Tickets that were given.
    pub(super) given: u64,
    /// Tickets of which this and all smaller ones are finished.
    pub(super) finished: u64,
    /// What came of the durable entries that could not be written.
    pub(super) refused: HashMap<u64, String>,
    /// Events that no record tells of, since the last that tells how many.
    pub(super) lost: u64,
    /// Failed attempts, and the reason of the last unless one succeeded since.
    pub(super) failures: u64,
    pub(super) reason: String,
    pub(super) urgent: bool,
    pub(super) closing: bool,
    pub(super) running: bool,
}

/// One record that is to be written.
pub(super) struct Entry {
    ticket: u64,
    durable: bool,
    what: What,
}

/// What it is to say.
pub(super) enum What {
    /// This.
    Event(Box<Event>),
    /// That files were opened: an event that takes ten times the memory until it is written.
    Open(OpenRecord),
}

impl Queue {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// When the first of those that wait came.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// True if no more may wait.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() + self.writing >= LIMIT
    }

    /// Adds one at the end. `durable`: somebody waits for its ticket, which is returned.
    pub(super) fn push(&mut self, what: What, durable: bool) -> u64 {
        self.given += 1;
        self.waiting.push_back(Entry { ticket: self.given, durable, what });
        self.since.get_or_insert_with(Instant::now);
        self.given
    }

    /// Takes the first, as many as are written in one transaction. Those that are left do not wait
    /// longer for that.
    pub(super) fn take(&mut self) -> Vec<Entry> {
        let taken = if self.waiting.len() <= AT_ONCE {
            (self.urgent, self.since) = (false, None);
            // Not its room: there may have been many.
            std::mem::take(&mut self.waiting).into()
        } else {
            self.waiting.drain(..AT_ONCE).collect::<Vec<_>>()
        };
        self.writing = taken.len();
        taken
    }

    /// An attempt to write what was taken has ended.
    pub(super) fn written(&mut self) {
        self.writing = 0;
    }

    /// What was taken and could not be written waits again, before everything else.
    pub(super) fn give_back(&mut self, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            self.waiting.push_front(entry);
        }
        self.since = (!self.waiting.is_empty()).then(Instant::now);
    }
}

impl Entry {
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// True if somebody waits for it.
    pub(super) fn is_durable(&self) -> bool {
        self.durable
    }

    pub(super) fn event(&self) -> Cow<'_, Event> {
        match &self.what {
            What::Event(event) => Cow::Borrowed(event),
            What::Open(record) => Cow::Owned(record.event()),
        }
    }
}

impl What {
    /// How many operations or opens it tells of.
    pub(super) fn count(&self) -> u64 {
        match self {
            Self::Event(event) => event.count,
            Self::Open(record) => record.count(),
        }
    }
}

impl From<Event> for What {
    fn from(event: Event) -> Self {
        Self::Event(event.into())
    }
}

impl From<OpenRecord> for What {
    fn from(record: OpenRecord) -> Self {
        Self::Open(record)
    }
}

/// So many may wait: at this point the disk has been in trouble for a while. Opens take 8 MiB then.
const LIMIT: usize = 65_536;
/// So many are written in one transaction.
const AT_ONCE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::model::caller::Caller;

    fn queue(events: usize) -> Queue {
        let mut queue = Queue::default();
        for number in 0..events {
            let event = Event::by(&Caller::owner(), "Sign", number.to_string());
            queue.push(event.into(), false);
        }
        queue
    }

    fn ids(entries: &[Entry]) -> Vec<usize> {
        let id = |entry: &Entry| entry.event().request_id.parse().unwrap();
        entries.iter().map(id).collect()
    }

    #[test]
    fn what_is_too_much_for_one_transaction_is_written_in_several_in_order() {
        let mut queue = queue(2 * AT_ONCE + 1);
        (queue.urgent, queue.refused) = (true, HashMap::new());
        let first = queue.take();
        assert!(queue.urgent && queue.since().is_some(), "the rest is as urgent");
        assert_eq!(ids(&first), (0..AT_ONCE).collect::<Vec<_>>());
        queue.written();
        queue.give_back(first);
        assert_eq!(ids(&queue.take())[..2], [0, 1], "it failed");
        assert_eq!(ids(&queue.take())[..2], [AT_ONCE, AT_ONCE + 1]);
        assert_eq!(ids(&queue.take()), [2 * AT_ONCE]);
        assert!(!queue.urgent && queue.since().is_none() && queue.take().is_empty());
    }

    #[test]
    fn what_is_being_written_counts_as_waiting() {
        let mut queue = queue(LIMIT);
        assert!(queue.is_full());
        drop(queue.take());
        assert!(queue.is_full());
        queue.written();
        assert!(!queue.is_full());
    }

    #[test]
    fn opens_that_wait_take_eight_mebibytes_at_most() {
        assert!(LIMIT * size_of::<Entry>() <= 8 << 20, "{}", size_of::<Entry>());
    }
}
