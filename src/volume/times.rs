//! The change times that a mount shows: header updates (re-wrap, seal) are not changes of a file.
//!
//! The kernel sets the backing ctime on every write, so the volume remembers, for inodes whose last
//! change was of this kind, which ctime to show as long as the backing one is still what that
//! change left. The list is a hint: losing it makes a backup tool read a file again, no more.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use super::backing::{Backing, BackingFile};

/// Bytes of a record in the saved list: inode, backing ctime, shown ctime, CRC-32, zeros.
const RECORD: usize = 32;

/// Which ctime to show for which inode.
#[derive(Debug, Default)]
pub struct ShownTimes {
    times: Mutex<HashMap<u64, Shown>>,
    changed: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Shown {
    backing: i64,
    shown: i64,
}

impl ShownTimes {
    /// The list that these saved bytes hold; damaged records are left out.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let times = bytes.chunks_exact(RECORD).filter_map(|record| {
            let (body, rest) = record.split_first_chunk::<24>()?;
            let (crc, _) = rest.split_first_chunk::<4>()?;
            if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
                return None;
            }
            let (ino, rest) = body.split_first_chunk::<8>()?;
            let (backing, shown) = rest.split_first_chunk::<8>()?;
            let shown = Shown {
                backing: i64::from_le_bytes(*backing),
                shown: i64::from_le_bytes(shown.try_into().ok()?),
            };
            Some((u64::from_le_bytes(*ino), shown))
        });
        Self { times: Mutex::new(times.collect()), changed: AtomicBool::new(false) }
    }

    /// The bytes to save, if anything changed since the last call.
    pub(super) fn save(&self) -> Option<Vec<u8>> {
        if !self.changed.swap(false, Ordering::Relaxed) {
            return None;
        }
        let times = self.lock();
        let mut bytes = Vec::with_capacity(times.len() * RECORD);
        for (ino, shown) in times.iter() {
            let start = bytes.len();
            for word in [ino.to_le_bytes(), shown.backing.to_le_bytes(), shown.shown.to_le_bytes()]
            {
                bytes.extend_from_slice(&word);
            }
            let crc = crc32fast::hash(bytes.get(start..).unwrap_or_default());
            bytes.extend_from_slice(&crc.to_le_bytes());
            bytes.extend_from_slice(&[0; 4]);
        }
        Some(bytes)
    }

    /// The ctime to show for an inode whose backing ctime is `backing`; both in nanoseconds.
    pub fn shown(&self, ino: u64, backing: i64) -> i64 {
        let mut times = self.lock();
        match times.get(&ino) {
            None => backing,
            Some(known) if known.backing == backing => known.shown,
            Some(_) => {
                // The file was really changed since: the entry is of no use any more.
                times.remove(&ino);
                self.changed.store(true, Ordering::Relaxed);
                backing
            }
        }
    }

    /// Runs `change` on an inode and keeps the ctime that was shown before it.
    pub(super) fn keep(
        &self,
        fd: BorrowedFd<'_>,
        ino: u64,
        change: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let shown = self.shown(ino, ctime(&fstat(fd)?));
        change()?;
        let backing = ctime(&fstat(fd)?);
        self.lock().insert(ino, Shown { backing, shown });
        self.changed.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Shown>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stat's change time in nanoseconds since 1970.
pub fn ctime(stat: &Stat) -> i64 {
    let nanos = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// A backing file whose header updates leave the shown times as they are.
pub struct TimedFile {
    file: BackingFile,
    ino: u64,
    times: Arc<ShownTimes>,
}

impl TimedFile {
    pub(super) fn new(file: BackingFile, ino: u64, times: Arc<ShownTimes>) -> Self {
        Self { file, ino, times }
    }
}

impl AsFd for TimedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

type Outcome<T> = Result<T, Errno>;

impl Backing for TimedFile {
    fn length(&self) -> Outcome<u64> {
        self.file.length()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Outcome<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Outcome<usize> {
        self.file.write_at(buf, offset)
    }
    fn set_length(&self, length: u64) -> Outcome<()> {
        self.file.set_length(length)
    }
    fn sync(&self) -> Outcome<()> {
        self.file.sync()
    }
    fn settle(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.settle(offset, length)
    }
    fn punch(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.punch(offset, length)
    }
    fn reserve(&self, offset: u64, length: u64) -> Outcome<()> {
        self.file.reserve(offset, length)
    }
    fn next_data(&self, offset: u64) -> Outcome<Option<u64>> {
        self.file.next_data(offset)
    }
    fn next_hole(&self, offset: u64) -> Outcome<u64> {
        self.file.next_hole(offset)
    }
    fn keep_times(&self, change: &mut dyn FnMut() -> Outcome<()>) -> Outcome<()> {
        self.times.keep(self.file.as_fd(), self.ino, || self.file.keep_times(change))
    }
    fn mtime(&self) -> Outcome<i64> {
        self.file.mtime()
    }
}
