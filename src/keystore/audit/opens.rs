//! File opens and their refusals, counted in memory: one record for each user, file and key in a
//! minute, and one more for the first refusal.
//!
//! **Memory.** Who opens, and under which key, is kept once for all files: an open takes no more than
//! [`OpenRecord`] and the minute that it is counted in.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::{Event, EventTime, RequestId};
use crate::crypto::CryptoError;
use crate::id::{FileId, KeyId, MaterialId};
use crate::keystore::model::action::Action;
use crate::keystore::model::caller::Caller;
use crate::keystore::model::id::KeyArn;

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

/// Who opens files under which key, and what comes of it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::keystore) struct Opener {
    principal: Cow<'static, str>,
    source: &'static str,
    source_ip: Option<IpAddr>,
    action: Action,
    key: KeyId,
    refused: Option<Refusal>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Refusal {
    result: Cow<'static, str>,
    why: String,
}

/// Opens of one file by one user, of which a record is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OpenRecord {
    opener: Arc<Opener>,
    file: Option<FileId>,
    material: Option<MaterialId>,
    request: RequestId,
    count: u64,
    first: EventTime,
    last: EventTime,
}

/// The opens that are not written down yet.
#[derive(Default)]
pub(super) struct Opens {
    counted: HashMap<OpenKey, Counted>,
    openers: HashSet<Arc<Opener>>,
    /// When the oldest of them was first counted.
    oldest: Option<Instant>,
}

/// What makes two opens one record.
#[derive(Debug, Clone)]
struct OpenKey {
    /// One of `openers`, in which there are no two alike.
    opener: Arc<Opener>,
    file: Option<FileId>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    material: Option<MaterialId>,
    request: RequestId,
    /// Opens that no record tells of.
    count: u64,
    first: EventTime,
    last: EventTime,
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

impl Opener {
    /// Who makes this open. `refused`: the name of the exception, and words.
    pub(in crate::keystore) fn new(
        caller: &Caller,
        open: &FileOpen,
        refused: Option<(Cow<'static, str>, String)>,
    ) -> Self {
        Self {
            principal: caller.principal.arn().into(),
            source: caller.source.as_str(),
            source_ip: caller.source_ip,
            action: open.action,
            key: open.key,
            refused: refused.map(|(result, why)| Refusal { result, why }),
        }
    }
}

impl OpenRecord {
    /// How many opens.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What the record says.
    pub(super) fn event(&self) -> Event {
        let opener = &self.opener;
        let caller = Caller { source_ip: opener.source_ip, ..Caller::owner() };
        let mut event = Event::by(&caller, opener.action.as_str(), self.request.to_string());
        event.principal = opener.principal.clone();
        event.source = opener.source.into();
        event.count = self.count;
        (event.time, event.last_time) = (self.first, (self.count > 1).then_some(self.last));
        event.key = Some(KeyArn(opener.key).to_string());
        event.material = self.material.map(|material| material.to_string());
        event.file = self.file.map(|file| file.to_string());
        if let Some(Refusal { result, why }) = &opener.refused {
            (event.result, event.detail) = (result.clone(), Some(why.clone()));
        }
        event
    }

    fn new((key, counted): (OpenKey, Counted)) -> Self {
        let OpenKey { opener, file } = key;
        let Counted { material, request, count, first, last, .. } = counted;
        Self { opener, file, material, request, count, first, last }
    }
}

impl Opens {
    /// Counts an open. If it is the first of its kind and `first` says so, its record is given back.
    /// Errors: `Random`.
    pub(super) fn count(
        &mut self,
        opener: Opener,
        open: &FileOpen,
        time: EventTime,
        first: First,
    ) -> Result<Option<OpenRecord>, CryptoError> {
        let key = OpenKey { opener: self.intern(opener), file: open.file };
        if let Some(counted) = self.counted.get_mut(&key) {
            if counted.count == 0 {
                counted.first = time;
            }
            counted.last = time;
            counted.count += 1;
            return Ok(None);
        }
        let (since, request) = (Instant::now(), RequestId::draw()?);
        let material = open.material;
        let mut counted = Counted { material, request, count: 1, first: time, last: time, since };
        let written = (first == First::Written).then(|| OpenRecord::new((key.clone(), counted)));
        if written.is_some() {
            counted.count = 0;
        }
        self.counted.insert(key, counted);
        self.oldest.get_or_insert(since);
        Ok(written)
    }

    /// Forgets an open whose first could not be written.
    pub(super) fn forget(&mut self, first: &OpenRecord) {
        let key = OpenKey { opener: first.opener.clone(), file: first.file };
        self.counted.remove(&key);
    }

    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// When the oldest is due, if there are any.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.oldest.map(|since| since + WINDOW)
    }

    /// Takes those whose minute is over.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<OpenRecord> {
        let due = |counted: &mut Counted| now.duration_since(counted.since) >= WINDOW;
        let taken = self.counted.extract_if(|_, counted| due(counted)).map(OpenRecord::new);
        let records = taken.filter(|record| record.count > 0).collect();
        self.oldest = self.counted.values().map(|counted| counted.since).min();
        if self.counted.is_empty() {
            *self = Self::default();
        }
        records
    }

    /// Takes all.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = OpenRecord> + use<> {
        let taken = std::mem::take(self).counted.into_iter().map(OpenRecord::new);
        taken.filter(|record| record.count > 0)
    }

    fn intern(&mut self, opener: Opener) -> Arc<Opener> {
        if let Some(known) = self.openers.get(&opener) {
            return known.clone();
        }
        if self.openers.len() == self.openers.capacity() {
            self.openers.retain(|opener| Arc::strong_count(opener) > 1);
        }
        let opener = Arc::new(opener);
        self.openers.insert(opener.clone());
        opener
    }
}

impl PartialEq for OpenKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.opener, &other.opener) && self.file == other.file
    }
}

impl Eq for OpenKey {}

impl Hash for OpenKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.opener).hash(state);
        self.file.hash(state);
    }
}

const WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::audit::SUCCESS;

    fn file(number: u8) -> FileOpen {
        let (key, file) = (KeyId::from_bytes([1; 16]), FileId::from_bytes([number; 16]));
        FileOpen { action: Action::Decrypt, key, material: None, file: Some(file) }
    }

    fn user(uid: u32, refused: Option<&str>) -> Opener {
        let refused = refused.map(|why| ("DisabledException".into(), why.to_owned()));
        Opener::new(&Caller::on_mount(uid, vec![]), &file(1), refused)
    }

    fn count(opens: &mut Opens, number: u8, second: i64, first: First) -> Option<OpenRecord> {
        let time = EventTime::from_millis(second * 1000);
        opens.count(user(1, None), &file(number), time, first).unwrap()
    }

    #[test]
    fn opens_of_one_file_by_one_user_become_one_event() {
        let mut opens = Opens::default();
        for second in 0..5 {
            assert_eq!(count(&mut opens, 1, second, First::Counted), None);
        }
        count(&mut opens, 2, 0, First::Counted);
        assert_eq!((opens.len(), opens.take_due(Instant::now()).len()), (2, 0));
        let records = opens.take_due(Instant::now() + WINDOW);
        let mut events: Vec<_> = records.iter().map(OpenRecord::event).collect();
        events.sort_by_key(|event| event.count);
        assert_eq!((events[0].count, events[0].last_time), (1, None));
        assert_eq!((events[1].count, events[1].end().seconds()), (5, 4));
        assert_eq!((opens.len(), opens.next_due()), (0, None));
    }

    #[test]
    fn an_open_that_was_written_down_at_once_is_not_counted_again() {
        let mut opens = Opens::default();
        let written = count(&mut opens, 1, 9, First::Written).unwrap();
        assert_eq!(written.count(), 1);
        assert_eq!(opens.take_all().count(), 0);
        count(&mut opens, 1, 9, First::Written).unwrap();
        assert_eq!(count(&mut opens, 1, 9, First::Written), None);
        let rest: Vec<_> = opens.take_all().map(|record| record.event()).collect();
        let time = EventTime::from_millis(9000);
        assert_eq!(
            (rest.len(), rest[0].count, rest[0].time, rest[0].last_time),
            (1, 1, time, None)
        );
        let first = count(&mut opens, 1, 9, First::Written).unwrap();
        opens.forget(&first);
        assert!(count(&mut opens, 1, 9, First::Written).is_some(), "it could not be written");
    }

    #[test]
    fn users_refusals_and_reasons_are_told_apart_and_an_event_says_which() {
        let mut opens = Opens::default();
        for (uid, refused) in [(1, None), (2, None), (1, Some("a")), (1, Some("b"))] {
            for _ in 0..3 {
                let opener = user(uid, refused);
                opens.count(opener, &file(1), EventTime::default(), First::Counted).unwrap();
            }
        }
        assert_eq!((opens.len(), opens.openers.len()), (4, 4));
        let mut events: Vec<_> = opens.take_all().map(|record| record.event()).collect();
        events.sort_by(|a, b| (&a.detail, &a.principal).cmp(&(&b.detail, &b.principal)));
        let says: Vec<_> = events.iter().map(|e| (&*e.result, e.detail.as_deref())).collect();
        let refused = "DisabledException";
        let all = [(SUCCESS, None), (SUCCESS, None), (refused, Some("a")), (refused, Some("b"))];
        assert_eq!(says, all);
        assert!(events.iter().all(|event| event.count == 3 && event.source == "mount"));
        assert!(events[0].principal.ends_with("/1") && events[1].principal.ends_with("/2"));
        let file = file(1).file.map(|file| file.to_string());
        assert!(events.iter().all(|event| event.file == file && event.key.is_some()));
    }

    /// 16,384 of them took 20 MiB, and as much again while they waited for the disk.
    #[test]
    fn an_open_takes_about_a_hundred_bytes_and_who_opens_is_kept_once() {
        assert!(size_of::<(OpenKey, Counted)>() <= 112, "{}", size_of::<(OpenKey, Counted)>());
        assert!(size_of::<OpenRecord>() <= 96, "{}", size_of::<OpenRecord>());
        let mut opens = Opens::default();
        for uid in 0..1000 {
            opens.count(user(uid, None), &file(1), EventTime::default(), First::Counted).unwrap();
            opens.counted.clear();
        }
        assert!(opens.openers.len() < 10, "those of whom nothing is counted any more");
    }
}
