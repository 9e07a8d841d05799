//! A backing file that remembers what a power cut could leave of it.
//!
//! Page writes are atomic and unordered between syncs; the length grows apart from contents;
//! shrinking and punching persist in the order they were asked for, and a page they removed never
//! comes back (FORMAT section 11.1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use kmsfs::envelope::Intents;
use kmsfs::envelope::layout::{PageNo, PageRole};
use kmsfs::id::FileId;
use kmsfs::volume::VolumeError;
use kmsfs::volume::backing::{Backing, Durability};
use kmsfs::volume::content::Announcements;
use kmsfs::volume::journal::PageJournal;
use rustix::io::Errno;

use crate::journal::{Journal, JournalFile, durable, has_record};

pub(crate) const PAGE: usize = 4096;
pub(crate) const SECTOR: usize = 512;
/// Bytes of the header slots.
const HEADER: usize = 1024;

pub(crate) type Page = Arc<[u8; PAGE]>;
type Result<T> = std::result::Result<T, Errno>;

/// The pages and the length of a file at one moment.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) pages: Vec<Option<Page>>,
    pub(crate) length: u64,
}

/// A change that is on its way to the disk.
#[derive(Clone)]
pub(crate) enum Change {
    Write(usize, Page),
    Length(u64),
    Punch(usize, usize),
}

/// What happened between two syncs.
#[derive(Clone)]
pub(crate) struct Epoch {
    /// What the first sync made durable.
    pub(crate) base: Image,
    /// What was asked for since then, in order.
    pub(crate) log: Vec<Change>,
    /// Pages that a failed sync may have dropped, as they were before: nothing has written them
    /// again since.
    pub(crate) dropped: BTreeMap<usize, Option<Page>>,
    /// The operations before this one were durable then.
    pub(crate) first: usize,
    /// The operation that was under way when the second sync came.
    pub(crate) last: usize,
    /// The files that were announced until then.
    pub(crate) announced: Intents,
    /// What was durable of the page journal then.
    pub(crate) journal: Journal,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Io,
    NoSpace,
    /// A write takes only its first pages.
    Short,
    /// The call does what it should and reports an error all the same.
    Late,
    /// From this call on no change and no sync succeeds, until the disk is healed.
    Dead,
    /// A call that only looks fails: a read, a length, a search for holes.
    Read,
    /// A sync fails; only syncs are counted.
    Sync,
    /// After a call that changes something the system writes back what it has, fails, and says so
    /// to whoever syncs next, once.
    WriteBack,
}

/// What the system says of pages that were never written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Unwritten {
    /// That they are holes.
    #[default]
    Holes,
    /// That they are data: space was reserved for them, and somebody has read them.
    Data,
}

#[derive(Default)]
struct Inner {
    now: Image,
    base: Image,
    log: Vec<Change>,
    epochs: Vec<Epoch>,
    first: usize,
    operation: usize,
    mtime: i64,
    fault: Option<(usize, Fault)>,
    hit: bool,
    announced: Intents,
    /// The file is from an earlier session: it must not change before that is announced.
    guarded: bool,
    dropped: BTreeMap<usize, Option<Page>>,
    /// A write-back has failed, and nobody was told.
    owed: bool,
    unwritten: Unwritten,
    /// The files of the page journal, where there is one.
    journal: Option<[Arc<JournalFile>; 2]>,
    torn: Torn,
}

/// What a cut tore: nothing of that is worth a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Torn {
    #[default]
    Nothing,
    Page(usize),
    /// Nobody knows which pages.
    Some,
}

/// The simulated file.
#[derive(Default)]
pub(crate) struct Disk(Mutex<Inner>);

impl Image {
    pub(crate) fn page(&self, number: usize) -> Option<&Page> {
        self.pages.get(number)?.as_ref()
    }

    pub(crate) fn set(&mut self, number: usize, page: Option<Page>) {
        if self.pages.len() <= number {
            self.pages.resize(number + 1, None);
        }
        self.pages[number] = page;
    }

    /// Removes the pages that do not lie within the length whole.
    pub(crate) fn cut(&mut self, length: u64) {
        let whole = usize::try_from(length / PAGE as u64).unwrap();
        if length < self.length || self.pages.len() > whole {
            self.pages.truncate(whole);
        }
        self.length = length;
    }
}

impl Disk {
    /// A file that was left like this, with nothing on its way.
    pub(crate) fn holding(image: Image) -> Self {
        let inner = Inner { now: image.clone(), base: image, mtime: 1 << 40, ..Inner::default() };
        Self(Mutex::new(inner))
    }

    /// The same, from an earlier session: the test fails if a page of the file is changed before
    /// that is announced.
    pub(crate) fn guarded(image: Image) -> Self {
        let disk = Self::holding(image);
        disk.lock().guarded = true;
        disk
    }

    /// What a power cut left after these announcements.
    pub(crate) fn left_by(image: Image, announced: Intents, unwritten: Unwritten) -> Self {
        let disk = Self::holding(image);
        let mut inner = disk.lock();
        (inner.announced, inner.unwritten) = (announced, unwritten);
        drop(inner);
        disk
    }

    /// The same, where a page that was durable must be in the page journal before it is written over,
    /// unless it is `torn`.
    pub(crate) fn journaled(self, torn: Torn) -> Self {
        let mut inner = self.lock();
        (inner.journal, inner.torn) = (Some(<[Arc<JournalFile>; 2]>::default()), torn);
        drop(inner);
        self
    }

    /// The files of the page journal.
    pub(crate) fn journal_files(&self) -> [Arc<JournalFile>; 2] {
        self.lock().journal.clone().expect("there is a page journal")
    }

    /// The page journal of a session that begins now.
    pub(crate) fn journal(&self) -> Option<PageJournal> {
        let files = self.lock().journal.clone()?;
        Some(PageJournal::over(files.map(|file| file as Arc<dyn Backing>)))
    }

    /// The files that were announced.
    pub(crate) fn announced(&self) -> Intents {
        self.lock().announced.clone()
    }

    /// From here on, changes belong to operation `number`.
    pub(crate) fn operation(&self, number: usize) {
        self.lock().operation = number;
    }

    /// Lets the call number `n` from now on fail, counting calls that change something or sync, or
    /// for [`Fault::Read`] those that do neither.
    pub(crate) fn fail(&self, n: usize, fault: Fault) {
        let mut inner = self.lock();
        inner.fault = Some((n, fault));
        inner.hit = false;
    }

    /// Lets the sync number `n` from now on fail.
    pub(crate) fn fail_sync(&self, n: usize) {
        self.fail(n, Fault::Sync);
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.lock().fault = None;
    }

    /// True if the fault came to pass.
    pub(crate) fn failed(&self) -> bool {
        self.lock().hit
    }

    /// How many pages a failed sync dropped that nothing has brought to the disk since.
    pub(crate) fn dropped(&self) -> usize {
        self.lock().dropped.len()
    }

    /// What the file holds now.
    pub(crate) fn image(&self) -> Image {
        self.lock().now.clone()
    }

    /// Everything since the disk was made, cut at the syncs; the last part ends now.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        let mut inner = self.lock();
        inner.close_epoch();
        std::mem::take(&mut inner.epochs)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    fn close_epoch(&mut self) {
        let log = std::mem::take(&mut self.log);
        let base = std::mem::replace(&mut self.base, self.now.clone());
        if !log.is_empty() || !self.dropped.is_empty() {
            let (dropped, announced) = (self.dropped.clone(), self.announced.clone());
            self.dropped.retain(|page, _| !log.iter().any(|change| change.replaces(*page)));
            let (first, last) = (self.first, self.operation);
            let journal = self.journal.as_ref().map_or_else(Journal::default, durable);
            self.epochs.push(Epoch { base, log, dropped, first, last, announced, journal });
        }
        self.first = self.operation;
    }

    /// Fails the test if a file of an earlier session is changed without a word.
    fn guard(&self, what: &str) {
        let pages = self.now.length.max(self.base.length) / PAGE as u64;
        let silent = self.guarded && self.announced.is_empty();
        assert!(!silent || pages <= 1, "{what} before the change was announced");
    }

    /// Fails the test if a page is written over that was durable and is not in the journal.
    fn must_be_kept(&self, number: usize, from: usize) {
        let Some(journal) = &self.journal else { return };
        let Some(old) = self.base.page(number) else { return };
        let is_data = matches!(PageNo(number as u64).role(), PageRole::Data(_));
        let start = PageNo(number as u64).unit_start();
        let gone = self.log.iter().any(|change| change.removes(number));
        if !is_data || from < start || gone || [Torn::Some, Torn::Page(number)].contains(&self.torn)
        {
            return;
        }
        let length = old[start..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let old = &old[start..start + length];
        let kept = length == 0 || has_record(journal, number, old);
        assert!(kept, "page {number} is not in the journal");
    }

    /// A sync fails: the pages that were on their way may be dropped and stay in memory as clean,
    /// so that a later sync has nothing to do with them. Sizes and holes are the journal's.
    fn drop_writes(&mut self) {
        let old: Vec<_> = self
            .log
            .iter()
            .filter_map(|change| match change {
                Change::Write(number, _) => Some(*number),
                _ => None,
            })
            .filter(|number| !self.log.iter().any(|change| change.removes(*number)))
            .map(|number| match self.dropped.get(&number) {
                Some(older) => (number, older.clone()),
                None => (number, self.base.page(number).cloned()),
            })
            .collect();
        let first = self.first;
        self.close_epoch();
        self.first = first;
        self.dropped.extend(old);
    }

    /// The fault of a call that changes something or syncs.
    fn fault(&mut self) -> Option<Fault> {
        let calls = |fault: Fault| !matches!(fault, Fault::Read | Fault::Sync);
        let (left, fault) = self.fault.filter(|(_, fault)| calls(*fault))?;
        if fault != Fault::Dead || left > 0 {
            self.fault = left.checked_sub(1).map(|left| (left, fault));
        }
        self.hit |= left == 0;
        (left == 0).then_some(fault)
    }

    /// Counts a call that only looks.
    fn look(&mut self) -> Result<()> {
        self.count(Fault::Read)
    }

    fn count(&mut self, kind: Fault) -> Result<()> {
        let Some((left, fault)) = self.fault.filter(|(_, fault)| *fault == kind) else {
            return Ok(());
        };
        self.fault = left.checked_sub(1).map(|left| (left, fault));
        self.hit |= left == 0;
        if left == 0 { Err(Errno::IO) } else { Ok(()) }
    }

    /// Makes a change, unless this is the call that fails.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> Result<()> {
        let fault = self.fault();
        let outcome = match fault {
            None | Some(Fault::WriteBack) => Ok(()),
            Some(Fault::NoSpace | Fault::Short) => return Err(Errno::NOSPC),
            Some(Fault::Late) => Err(Errno::IO),
            Some(_) => return Err(Errno::IO),
        };
        change(self);
        if fault == Some(Fault::WriteBack) {
            self.fail_write_back();
        }
        outcome
    }

    /// What the next to sync is told.
    fn tell(&mut self) -> Result<()> {
        if std::mem::take(&mut self.owed) { Err(Errno::IO) } else { Ok(()) }
    }

    fn fail_write_back(&mut self) {
        self.drop_writes();
        self.owed = true;
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let left = usize::try_from(self.now.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        let mut at = usize::try_from(offset).unwrap();
        let mut rest = &mut buf[..length];
        while !rest.is_empty() {
            let (page, within) = (at / PAGE, at % PAGE);
            let take = (PAGE - within).min(rest.len());
            match self.now.page(page) {
                Some(bytes) => rest[..take].copy_from_slice(&bytes[within..within + take]),
                None => rest[..take].fill(0),
            }
            at += take;
            rest = &mut rest[take..];
        }
        length
    }
}

impl Announcements for Disk {
    fn announce(&self, file: FileId) -> std::result::Result<u64, VolumeError> {
        self.lock().announced.add(file);
        Ok(1)
    }

    fn generation(&self) -> u64 {
        1
    }
}

impl Change {
    /// True if a page is not as it was, whatever the sync before this change did to it.
    fn replaces(&self, page: usize) -> bool {
        matches!(self, Self::Write(number, _) if *number == page) || self.removes(page)
    }

    fn removes(&self, page: usize) -> bool {
        match self {
            Self::Write(..) => false,
            Self::Length(length) => page >= usize::try_from(length / PAGE as u64).unwrap(),
            Self::Punch(first, end) => (*first..*end).contains(&page),
        }
    }
}

impl Backing for Disk {
    fn length(&self) -> Result<u64> {
        let mut inner = self.lock();
        inner.look()?;
        Ok(inner.now.length)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut inner = self.lock();
        inner.look()?;
        Ok(inner.read(offset, buf))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let mut inner = self.lock();
        let fault = inner.fault();
        let room = PAGE - usize::try_from(offset).unwrap() % PAGE;
        let taken = match fault {
            None | Some(Fault::Late | Fault::WriteBack) => buf.len(),
            Some(Fault::Short) if buf.len() > room => {
                room + (buf.len() - room - 1) / PAGE / 2 * PAGE
            }
            Some(Fault::NoSpace | Fault::Short) => return Err(Errno::NOSPC),
            Some(Fault::Io | Fault::Dead | Fault::Read | Fault::Sync) => return Err(Errno::IO),
        };
        if offset == 0 && buf.len() > HEADER {
            // A new header: the file was made in this session.
            inner.guarded = false;
        } else if offset >= HEADER as u64 {
            inner.guard("a page was written");
        }
        let end = offset + taken as u64;
        assert!(
            end <= inner.now.length,
            "nothing is written past the end (R5): {end} of {}",
            inner.now.length
        );
        let (mut at, mut rest) = (usize::try_from(offset).unwrap(), &buf[..taken]);
        while !rest.is_empty() {
            let (number, within) = (at / PAGE, at % PAGE);
            let take = (PAGE - within).min(rest.len());
            inner.must_be_kept(number, within);
            let mut page = inner.now.page(number).map_or([0; PAGE], |page| **page);
            page[within..within + take].copy_from_slice(&rest[..take]);
            let page = Arc::new(page);
            inner.now.set(number, Some(page.clone()));
            inner.log.push(Change::Write(number, page));
            at += take;
            rest = &rest[take..];
        }
        inner.mtime += 1;
        match fault {
            Some(Fault::Late) => return Err(Errno::IO),
            Some(Fault::WriteBack) => inner.fail_write_back(),
            _ => {}
        }
        Ok(taken)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.lock().change(|inner| {
            let hint = usize::try_from(length / PAGE as u64).unwrap();
            let whole = length.is_multiple_of(PAGE as u64);
            let left_in_hint = !whole && inner.now.page(hint).is_some();
            assert!(!left_in_hint, "a cut leaves no ciphertext in the hint (R6)");
            inner.now.cut(length);
            inner.log.push(Change::Length(length));
            inner.mtime += 1;
        })
    }

    fn sync(&self, _what: Durability) -> Result<()> {
        let mut inner = self.lock();
        let fault = inner.fault();
        if inner.count(Fault::Sync).is_err() || fault.is_some() {
            inner.drop_writes();
            return Err(Errno::IO);
        }
        inner.close_epoch();
        inner.tell()
    }

    fn write_back(&self, _offset: u64, _length: u64) -> Result<()> {
        let mut inner = self.lock();
        inner.change(|_| ())?;
        inner.tell()
    }

    fn forget(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let whole = [offset, length].iter().all(|at| at.is_multiple_of(PAGE as u64));
        assert!(whole, "whole pages are punched");
        self.lock().change(|inner| {
            let first = usize::try_from(offset).unwrap() / PAGE;
            let end = first + usize::try_from(length).unwrap() / PAGE;
            for page in first..end.min(inner.now.pages.len()) {
                inner.now.set(page, None);
            }
            inner.log.push(Change::Punch(first, end));
            inner.mtime += 1;
        })
    }

    fn reserve(&self, _offset: u64, _length: u64) -> Result<()> {
        self.lock().change(|_| ())
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        let mut inner = self.lock();
        inner.look()?;
        if inner.unwritten == Unwritten::Data {
            return Ok((offset < inner.now.length).then_some(offset));
        }
        let first = usize::try_from(offset).unwrap() / PAGE;
        let found = (first..inner.now.pages.len()).find(|page| inner.now.page(*page).is_some());
        Ok(found.map(|page| ((page * PAGE) as u64).max(offset)))
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        let mut inner = self.lock();
        inner.look()?;
        if inner.unwritten == Unwritten::Data {
            return Ok(inner.now.length);
        }
        let first = usize::try_from(offset).unwrap() / PAGE;
        let found = (first..).find(|page| inner.now.page(*page).is_none()).unwrap();
        Ok(((found * PAGE) as u64).max(offset).min(inner.now.length))
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let before = self.lock().mtime;
        change()?;
        self.lock().change(|inner| inner.mtime = before)
    }

    fn move_mtime(&self) -> Result<()> {
        self.lock().change(|inner| inner.mtime += 1_000_000_000)
    }

    fn mtime(&self) -> Result<i64> {
        let mut inner = self.lock();
        inner.look()?;
        Ok(inner.mtime)
    }

    fn ctime(&self) -> Result<i64> {
        Ok(0)
    }
}
