//! A backing file in memory: for benches and tests, which also count and refuse its calls.

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::contents::{Backing, Durability, MTIME_STEP, Result};

const PAGE: usize = 4096;

/// Bytes in memory; all-zero pages count as holes.
#[derive(Debug, Default)]
pub struct MemoryFile(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    bytes: Vec<u8>,
    mtime: i64,
    /// The mtime that a sync made durable.
    synced_mtime: i64,
}

impl MemoryFile {
    /// A file with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(Inner { bytes, ..Inner::default() }))
    }

    /// A copy of the bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The modification time that a sync has made durable.
    pub fn synced_mtime(&self) -> i64 {
        self.lock().synced_mtime
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }
}

fn index(offset: u64) -> Result<usize> {
    usize::try_from(offset).map_err(|_| Errno::FBIG)
}

impl Backing for MemoryFile {
    fn length(&self) -> Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inner = self.lock();
        let rest = inner.bytes.get(index(offset)?..).unwrap_or_default();
        let length = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let (start, mut inner) = (index(offset)?, self.lock());
        let end = start + buf.len();
        if inner.bytes.len() < end {
            inner.bytes.resize(end, 0);
        }
        if let Some(room) = inner.bytes.get_mut(start..end) {
            room.copy_from_slice(buf);
        }
        inner.mtime += 1;
        Ok(buf.len())
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let mut inner = self.lock();
        inner.bytes.resize(index(length)?, 0);
        inner.mtime += 1;
        Ok(())
    }

    fn sync(&self, what: Durability) -> Result<()> {
        let mut inner = self.lock();
        if what == Durability::Everything {
            inner.synced_mtime = inner.mtime;
        }
        Ok(())
    }

    fn write_back(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn forget(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        let mut inner = self.lock();
        let end = index(offset + length)?.min(inner.bytes.len());
        let start = index(offset)?.min(end);
        inner.bytes.get_mut(start..end).unwrap_or_default().fill(0);
        inner.mtime += 1;
        Ok(())
    }

    fn reserve(&self, _offset: u64, _length: u64) -> Result<()> {
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        let (start, inner) = (index(offset)?, self.lock());
        let pages = inner.bytes.chunks(PAGE).enumerate().skip(start / PAGE);
        let found =
            pages.map(|(n, page)| (n * PAGE, page)).find(|(_, p)| p.iter().any(|b| *b != 0));
        Ok(found.map(|(at, _)| (at as u64).max(offset)))
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        let (start, inner) = (index(offset)?, self.lock());
        let pages = inner.bytes.chunks(PAGE).enumerate().skip(start / PAGE);
        let found =
            pages.map(|(n, page)| (n * PAGE, page)).find(|(_, p)| p.iter().all(|b| *b == 0));
        Ok(found.map_or(inner.bytes.len() as u64, |(at, _)| (at as u64).max(offset)))
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mtime = self.lock().mtime;
        change()?;
        self.lock().mtime = mtime;
        Ok(())
    }

    fn move_mtime(&self) -> Result<()> {
        self.lock().mtime += MTIME_STEP;
        Ok(())
    }

    fn mtime(&self) -> Result<i64> {
        Ok(self.lock().mtime)
    }

    fn ctime(&self) -> Result<i64> {
        Ok(0)
    }
}
