//! A backing file that remembers what a power cut could leave of it.
//!
//! Page writes are atomic and unordered between syncs; the length grows apart from contents;
//! shrinking and punching persist in the order they were asked for, and a page they removed never
//! comes back (FORMAT section 11.1).

use std::sync::{Arc, Mutex, MutexGuard};

use kmsfs::envelope::Intents;
use kmsfs::id::FileId;
use kmsfs::volume::VolumeError;
use kmsfs::volume::backing::Backing;
use kmsfs::volume::content::Announcements;
use rustix::io::Errno;

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
    /// The operations before this one were durable then.
    pub(crate) first: usize,
    /// The operation that was under way when the second sync came.
    pub(crate) last: usize,
    /// The files that were announced until then.
    pub(crate) announced: Intents,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Io,
    NoSpace,
    /// A write takes only its first pages.
    Short,
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
    pub(crate) fn left_by(image: Image, announced: Intents) -> Self {
        let disk = Self::holding(image);
        disk.lock().announced = announced;
        disk
    }

    /// The files that were announced.
    pub(crate) fn announced(&self) -> Intents {
        self.lock().announced.clone()
    }

    /// From here on, changes belong to operation `number`.
    pub(crate) fn operation(&self, number: usize) {
        self.lock().operation = number;
    }

    /// Lets the call number `n` from now on fail, counting calls that change something or sync.
    pub(crate) fn fail(&self, n: usize, fault: Fault) {
        let mut inner = self.lock();
        inner.fault = Some((n, fault));
        inner.hit = false;
    }

    /// No more faults.
    pub(crate) fn heal(&self) {
        self.lock().fault = None;
    }

    /// True if the fault came to pass.
    pub(crate) fn failed(&self) -> bool {
        self.lock().hit
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
        if !log.is_empty() {
            let announced = self.announced.clone();
            let (first, last) = (self.first, self.operation);
            self.epochs.push(Epoch { base, log, first, last, announced });
        }
        self.first = self.operation;
    }

    /// Fails the test if a file of an earlier session is changed without a word.
    fn guard(&self, what: &str) {
        let pages = self.now.length.max(self.base.length) / PAGE as u64;
        let silent = self.guarded && self.announced.is_empty();
        assert!(!silent || pages <= 1, "{what} before the change was announced");
    }

    fn fault(&mut self) -> Option<Fault> {
        let (left, fault) = self.fault?;
        self.fault = left.checked_sub(1).map(|left| (left, fault));
        self.hit |= left == 0;
        (left == 0).then_some(fault)
    }

    fn refuse(&mut self) -> Result<()> {
        match self.fault() {
            None => Ok(()),
            Some(Fault::Io) => Err(Errno::IO),
            Some(Fault::NoSpace | Fault::Short) => Err(Errno::NOSPC),
        }
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

impl Backing for Disk {
    fn length(&self) -> Result<u64> {
        Ok(self.lock().now.length)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        Ok(self.lock().read(offset, buf))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let mut inner = self.lock();
        let fault = inner.fault();
        let room = PAGE - usize::try_from(offset).unwrap() % PAGE;
        let taken = match fault {
            None => buf.len(),
            Some(Fault::Short) if buf.len() > room => {
                room + (buf.len() - room - 1) / PAGE / 2 * PAGE
            }
            Some(Fault::Io) => return Err(Errno::IO),
            Some(_) => return Err(Errno::NOSPC),
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
            let mut page = inner.now.page(number).map_or([0; PAGE], |page| **page);
            page[within..within + take].copy_from_slice(&rest[..take]);
            let page = Arc::new(page);
            inner.now.set(number, Some(page.clone()));
            inner.log.push(Change::Write(number, page));
            at += take;
            rest = &rest[take..];
        }
        inner.mtime += 1;
        Ok(taken)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let mut inner = self.lock();
        inner.refuse()?;
        let hint = usize::try_from(length / PAGE as u64).unwrap();
        let left_in_hint = !length.is_multiple_of(PAGE as u64) && inner.now.page(hint).is_some();
        assert!(!left_in_hint, "a cut leaves no ciphertext in the hint (R6)");
        inner.now.cut(length);
        inner.log.push(Change::Length(length));
        inner.mtime += 1;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.refuse()?;
        inner.close_epoch();
        Ok(())
    }

    fn settle(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let mut inner = self.lock();
        inner.refuse()?;
        let whole = [offset, length].iter().all(|at| at.is_multiple_of(PAGE as u64));
        assert!(whole, "whole pages are punched");
        let first = usize::try_from(offset).unwrap() / PAGE;
        let end = first + usize::try_from(length).unwrap() / PAGE;
        for page in first..end.min(inner.now.pages.len()) {
            inner.now.set(page, None);
        }
        inner.log.push(Change::Punch(first, end));
        inner.mtime += 1;
        Ok(())
    }

    fn reserve(&self, _offset: u64, _length: u64) -> Result<()> {
        self.lock().refuse()
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        let inner = self.lock();
        let first = usize::try_from(offset).unwrap() / PAGE;
        let found = (first..inner.now.pages.len()).find(|page| inner.now.page(*page).is_some());
        Ok(found.map(|page| ((page * PAGE) as u64).max(offset)))
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        let inner = self.lock();
        let first = usize::try_from(offset).unwrap() / PAGE;
        let found = (first..).find(|page| inner.now.page(*page).is_none()).unwrap();
        Ok(((found * PAGE) as u64).max(offset).min(inner.now.length))
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let before = self.lock().mtime;
        change()?;
        self.lock().mtime = before;
        Ok(())
    }

    fn mtime(&self) -> Result<i64> {
        Ok(self.lock().mtime)
    }

    fn ctime(&self) -> Result<i64> {
        Ok(0)
    }
}
