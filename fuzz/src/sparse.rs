//! A backing file that keeps pages, not bytes: as long as whoever writes to the vault likes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kmsfs::volume::backing::{Backing, Durability};
use rustix::io::Errno;

const PAGE: u64 = 4096;

type Result<T> = std::result::Result<T, Errno>;
type Page = [u8; PAGE as usize];

/// Pages in memory; those that are not there are holes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    pages: BTreeMap<u64, Box<Page>>,
    length: u64,
}

/// A file of them.
#[derive(Debug, Default)]
pub struct SparseFile(Mutex<Pages>);

impl Pages {
    /// A file of holes.
    pub fn holes(length: u64) -> Self {
        Self { pages: BTreeMap::new(), length }
    }

    /// The numbers of the pages that hold something.
    pub fn numbers(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// A page to change; a new one is all zeros.
    pub fn page(&mut self, number: u64) -> &mut Page {
        self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE as usize]))
    }

    /// Turns a page into a hole.
    pub fn drop_page(&mut self, number: u64) {
        self.pages.remove(&number);
    }

    /// The length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Cuts off what is behind `length`, or adds a hole.
    pub fn set_length(&mut self, length: u64) {
        self.pages.retain(|number, _| number * PAGE < length);
        if let Some(page) = self.pages.get_mut(&(length / PAGE)) {
            let end = usize::try_from(length % PAGE).expect("a page is short");
            page[end..].fill(0);
        }
        self.length = length;
    }
}

impl SparseFile {
    /// A file with these pages.
    pub fn new(pages: Pages) -> Self {
        Self(Mutex::new(pages))
    }

    /// A copy of what it holds.
    pub fn pages(&self) -> Pages {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of page `number` that a transfer of `length` bytes at `offset` touches, and where in
/// the transfer it begins.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE).expect("a page is short");
        let take = (PAGE as usize - start).min(length - done);
        let part = (at / PAGE, start, take, done);
        done += take;
        (take > 0).then_some(part)
    })
}

impl Backing for SparseFile {
    fn length(&self) -> Result<u64> {
        Ok(self.lock().length)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let file = self.lock();
        let left = usize::try_from(file.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        for (number, start, take, at) in parts(offset, length) {
            let room = &mut buf[at..at + take];
            match file.pages.get(&number) {
                Some(page) => room.copy_from_slice(&page[start..start + take]),
                None => room.fill(0),
            }
        }
        Ok(length)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(Errno::FBIG)?;
        let mut file = self.lock();
        for (number, start, take, at) in parts(offset, buf.len()) {
            file.page(number)[start..start + take].copy_from_slice(&buf[at..at + take]);
        }
        file.length = file.length.max(end);
        Ok(buf.len())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        i64::try_from(length).map_err(|_| Errno::FBIG)?;
        self.lock().set_length(length);
        Ok(())
    }

    fn sync(&self, _what: Durability) -> Result<()> {
        Ok(())
    }

    fn write_back(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn forget(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let mut file = self.lock();
        let end = offset.checked_add(length).ok_or(Errno::INVAL)?;
        file.pages.retain(|number, page| {
            let (from, to) = (number * PAGE, (number + 1) * PAGE);
            let (start, stop) = (offset.clamp(from, to) - from, end.clamp(from, to) - from);
            page[start as usize..stop.max(start) as usize].fill(0);
            stop - start.min(stop) < PAGE
        });
        Ok(())
    }

    fn reserve(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        let file = self.lock();
        let next = file.pages.range(offset / PAGE..).next();
        Ok(next.map(|(number, _)| (number * PAGE).max(offset)).filter(|at| *at < file.length))
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        let file = self.lock();
        if offset >= file.length {
            return Err(Errno::NXIO);
        }
        let mut number = offset / PAGE;
        while file.pages.contains_key(&number) {
            number += 1;
        }
        Ok((number * PAGE).max(offset).min(file.length))
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        change()
    }

    fn move_mtime(&self) -> Result<()> {
        Ok(())
    }

    fn mtime(&self) -> Result<i64> {
        Ok(0)
    }

    fn ctime(&self) -> Result<i64> {
        Ok(0)
    }
}
