//! File opens and their refusals, counted in memory: one record for each user, file and key in a
//! minute, and one more for the first refusal.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::event::{Event, EventTime};
use crate::id::{FileId, KeyId, MaterialId};
use crate::keystore::model::action::Action;

/// An open of a file through a mount.
#[derive(Debug, Clone, Copy)]
pub struct FileOpen {
    /// What it stands for: Decrypt, or GenerateDataKey for a file that is made.
    pub action: Action,
    /// The key of the file.
    pub key: KeyId,
    /// The material of the key, if it was looked at.
    pub material: Option<MaterialId>,
    /// The file; none if it was refused before there was one.
    pub file: Option<FileId>,
}

/// What makes two opens one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::keystore) struct OpenKey {
    /// The ARN of who opens.
    pub(in crate::keystore) principal: Cow<'static, str>,
    /// The operation of the KMS that the open stands for.
    pub(in crate::keystore) operation: &'static str,
    /// The file.
    pub(in crate::keystore) file: [u8; 16],
    /// The key.
    pub(in crate::keystore) key: [u8; 16],
    /// Why it was refused.
    pub(in crate::keystore) refused: Option<String>,
}

/// The opens that are not written down yet.
#[derive(Default)]
pub(super) struct Opens {
    counted: HashMap<OpenKey, Counted>,
    /// When the oldest of them was first counted.
    oldest: Option<Instant>,
}

struct Counted {
    /// Its count is that of the opens which no record tells of.
    event: Event,
    since: Instant,
}

/// What becomes of the first open of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// It is counted like the others.
    Counted,
    /// It is written down before anything else happens, so it is given back.
    Written,
}

impl Opens {
    /// Counts an open. `describe` makes the event of the first one.
    pub(super) fn count<E>(
        &mut self,
        key: &OpenKey,
        time: EventTime,
        first: First,
        describe: impl FnOnce() -> Result<Event, E>,
    ) -> Result<Option<Event>, E> {
        if let Some(Counted { event, .. }) = self.counted.get_mut(key) {
            if event.count == 0 {
                event.time = time;
            }
            event.last_time = (event.count > 0).then_some(time);
            event.count += 1;
            return Ok(None);
        }
        let since = Instant::now();
        let event = describe()?;
        let written = (first == First::Written).then(|| event.clone());
        let count = u64::from(written.is_none());
        self.counted.insert(key.clone(), Counted { event: Event { count, ..event }, since });
        self.oldest.get_or_insert(since);
        Ok(written)
    }

    /// Forgets an open whose first could not be written.
    pub(super) fn forget(&mut self, key: &OpenKey) {
        self.counted.remove(key);
    }

    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// When the oldest is due, if there are any.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.oldest.map(|since| since + WINDOW)
    }

    /// Takes those whose minute is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Event> {
        let due = |counted: &mut Counted| now.duration_since(counted.since) >= WINDOW;
        let taken = self.counted.extract_if(|_, counted| due(counted));
        let events = taken.map(|(_, counted)| counted.event).filter(|event| event.count > 0);
        let events = events.collect();
        self.oldest = self.counted.values().map(|counted| counted.since).min();
        events
    }

    /// Takes all.
    pub(super) fn take_all(&mut self) -> Vec<Event> {
        self.oldest = None;
        let taken = self.counted.drain().map(|(_, counted)| counted.event);
        taken.filter(|event| event.count > 0).collect()
    }
}

const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::CryptoError;
    use crate::keystore::model::caller::Caller;

    fn key(file: u8) -> OpenKey {
        OpenKey {
            principal: "p".into(),
            operation: "Decrypt",
            file: [file; 16],
            key: [1; 16],
            refused: None,
        }
    }

    fn event() -> Result<Event, CryptoError> {
        Ok(Event::by(&Caller::owner(), "Decrypt", "r".into()))
    }

    #[test]
    fn opens_of_one_file_by_one_user_become_one_event() {
        let mut opens = Opens::default();
        for second in 0..5 {
            let time = EventTime::from_millis(second * 1000);
            assert_eq!(opens.count(&key(1), time, First::Counted, event), Ok(None));
        }
        opens.count(&key(2), EventTime::default(), First::Counted, event).unwrap();
        assert_eq!((opens.len(), opens.take_due(Instant::now()).len()), (2, 0));
        let mut events = opens.take_due(Instant::now() + WINDOW);
        events.sort_by_key(|event| event.count);
        assert_eq!((events[0].count, events[0].last_time), (1, None));
        assert_eq!((events[1].count, events[1].end().seconds()), (5, 4));
        assert_eq!((opens.len(), opens.next_due()), (0, None));
    }

    #[test]
    fn an_open_that_was_written_down_at_once_is_not_counted_again() {
        let mut opens = Opens::default();
        let time = EventTime::from_millis(9);
        let written = opens.count(&key(1), time, First::Written, event).unwrap().unwrap();
        assert_eq!(written.count, 1);
        assert!(opens.take_all().is_empty());
        opens.count(&key(1), time, First::Written, event).unwrap().unwrap();
        assert_eq!(opens.count(&key(1), time, First::Written, event), Ok(None));
        let rest = opens.take_all();
        assert_eq!(
            (rest.len(), rest[0].count, rest[0].time, rest[0].last_time),
            (1, 1, time, None)
        );
    }
}
