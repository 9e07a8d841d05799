//! What a file's contents lie on: one seam, so that tests can crash it and fill it up.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Advice, FallocateFlags, Mode, SeekFrom, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags,
    fadvise, fallocate, fchmod, fdatasync, fgetxattr, flistxattr, flistxattr_query, fremovexattr,
    fsetxattr, fstat, fsync, ftruncate, futimens, seek,
};
use rustix::io::{Errno, pread, pwrite};

use super::lender;
use crate::envelope::XATTR_PREFIX;
use crate::sys;
use crate::volume::model::clock;

pub(in crate::volume) type Result<T> = std::result::Result<T, Errno>;

/// What a sync makes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Contents and length: fdatasync(2).
    Contents,
    /// Owner, mode, times and attributes as well: fsync(2).
    Everything,
}

/// A backing file: bytes at offsets, a length, and durability on request.
///
/// Crash model (FORMAT section 11): a page is written whole or not at all; between two syncs pages
/// reach the disk in any order, apart from the length; shrinking and punching persist in order.
pub trait Backing: Send + Sync {
    /// The length in bytes.
    fn length(&self) -> Result<u64>;
    /// The number of its inode; 0 for what has none.
    fn number(&self) -> u64 {
        0
    }
    /// Reads up to the end of the file; returns how many bytes there were.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
    /// Says that this range is read next, so that the disk may begin. Changes nothing that is read.
    fn will_read(&self, offset: u64, length: u64) {
        let _ = (offset, length);
    }
    /// Writes from the start of `buf`; returns how many bytes were taken before an error or a full
    /// disk (an error only when none were).
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize>;
    /// Sets the length.
    fn set_length(&self, length: u64) -> Result<()>;
    /// Makes everything written so far durable. An error is told once: the next call may succeed
    /// though nothing was written again.
    fn sync(&self, what: Durability) -> Result<()>;
    /// Waits until nothing of this range is on its way to the disk and what was written is there.
    /// An error may be of anything that was written before, and is told once, here or by a sync.
    fn write_back(&self, offset: u64, length: u64) -> Result<()>;
    /// Drops what the system has of this range in memory, as far as it takes it to be on the disk.
    fn forget(&self, offset: u64, length: u64) -> Result<()>;
    /// Turns the range into a hole.
    fn punch(&self, offset: u64, length: u64) -> Result<()>;
    /// Reserves space for the range without changing the length.
    fn reserve(&self, offset: u64, length: u64) -> Result<()>;
    /// The next offset that holds data, or `None` behind the last.
    fn next_data(&self, offset: u64) -> Result<Option<u64>>;
    /// The next offset that is a hole; the end of the file counts as one.
    fn next_hole(&self, offset: u64) -> Result<u64>;
    /// Removes the attributes that are encrypted under a key of the file.
    fn drop_attributes(&self) -> Result<()> {
        Ok(())
    }
    /// Runs `change` and puts modification time, mode and file capabilities back: for changes that are
    /// not contents.
    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()>;
    /// Moves the modification time by a step, by which a tool that goes by size and time knows that it
    /// has to copy the file again.
    fn move_mtime(&self) -> Result<()>;
    /// The modification time in nanoseconds since 1970.
    fn mtime(&self) -> Result<i64>;
    /// The time of the last change of anything, in nanoseconds since 1970.
    fn ctime(&self) -> Result<i64>;
}

/// True if every byte of the file is zero.
///
/// It is the bytes that are looked at. Where space was allocated and nothing written, as a crash
/// leaves it, the system calls pages data that somebody has read; only what it calls a hole is one.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn is_blank(backing: &dyn Backing) -> Result<bool> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some(data) = backing.next_data(at)? {
        let end = backing.next_hole(data)?;
        at = data;
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..room).unwrap_or_default();
            let got = backing.read_at(chunk, at)?;
            if chunk.iter().take(got).any(|byte| *byte != 0) {
                return Ok(false);
            }
            if got < room {
                return Ok(true);
            }
            at += got as u64;
        }
        at = at.max(data + 1);
    }
    Ok(true)
}

/// A file of the backing filesystem.
#[derive(Debug)]
pub struct BackingFile(OwnedFd);

impl BackingFile {
    /// Takes over an open file.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for BackingFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Backing for BackingFile {
    fn number(&self) -> u64 {
        fstat(&self.0).map_or(0, |stat| stat.st_ino)
    }

    fn length(&self) -> Result<u64> {
        u64::try_from(fstat(&self.0)?.st_size).map_err(|_| Errno::IO)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&self.0, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn will_read(&self, offset: u64, length: u64) {
        // A filesystem that cannot reads when it is asked.
        let _ = fadvise(&self.0, offset, NonZeroU64::new(length), Advice::WillNeed);
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get(done..).filter(|rest| !rest.is_empty()) {
            match pwrite(&self.0, rest, offset + done as u64) {
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        ftruncate(&self.0, length)
    }

    fn sync(&self, what: Durability) -> Result<()> {
        match what {
            Durability::Contents => fdatasync(&self.0),
            Durability::Everything => fsync(&self.0),
        }
    }

    fn write_back(&self, offset: u64, length: u64) -> Result<()> {
        sys::write_back(self.0.as_fd(), offset, length)
    }

    fn forget(&self, offset: u64, length: u64) -> Result<()> {
        fadvise(&self.0, offset, NonZeroU64::new(length), Advice::DontNeed)
    }

    fn punch(&self, offset: u64, length: u64) -> Result<()> {
        fallocate(&self.0, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)
    }

    fn reserve(&self, offset: u64, length: u64) -> Result<()> {
        fallocate(&self.0, FallocateFlags::KEEP_SIZE, offset, length)
    }

    fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        match seek(&self.0, SeekFrom::Data(offset)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn next_hole(&self, offset: u64) -> Result<u64> {
        match seek(&self.0, SeekFrom::Hole(offset)) {
            Err(Errno::NXIO) => self.length(),
            other => other,
        }
    }

    fn drop_attributes(&self) -> Result<()> {
        let length = match flistxattr_query(&self.0) {
            Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other?,
        };
        let mut names = vec![0; length];
        let length = flistxattr(&self.0, &mut names[..])?;
        names.truncate(length);
        let sealed = |name: &&[u8]| name.starts_with(XATTR_PREFIX.as_bytes());
        let mut lost = names.split(|byte| *byte == 0).filter(sealed);
        lost.try_for_each(|name| fremovexattr(&self.0, name))
    }

    fn keep_times(&self, change: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let before = fstat(&self.0)?;
        let capabilities = self.capabilities(&before)?;
        change()?;
        self.set_mtime(before.st_mtime, &before)?;
        self.put_mode_back(&before)?;
        self.put_capabilities_back(&before, capabilities)
    }

    fn move_mtime(&self) -> Result<()> {
        let before = fstat(&self.0)?;
        for step in MTIME_STEPS {
            self.set_mtime(before.st_mtime.saturating_add(step), &before)?;
            if fstat(&self.0)?.st_mtime != before.st_mtime {
                break;
            }
        }
        Ok(())
    }

    fn mtime(&self) -> Result<i64> {
        Ok(clock::mtime(&fstat(&self.0)?))
    }

    fn ctime(&self) -> Result<i64> {
        Ok(clock::ctime(&fstat(&self.0)?))
    }
}

impl BackingFile {
    /// Sets the modification time, with the fraction that it had. The file of somebody else keeps the
    /// time of the change: only its owner sets times.
    fn set_mtime(&self, seconds: i64, before: &Stat) -> Result<()> {
        let mtime =
            Timespec { tv_sec: seconds, tv_nsec: before.st_mtime_nsec.try_into().unwrap_or(0) };
        let atime = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        match futimens(&self.0, &Timestamps { last_access: atime, last_modification: mtime }) {
            Err(Errno::PERM) => Ok(()),
            other => other,
        }
    }

    /// The file's capabilities (capabilities(7)). Only an executable file is asked: no other has any.
    fn capabilities(&self, before: &Stat) -> Result<Option<Vec<u8>>> {
        if before.st_mode & 0o111 == 0 {
            return Ok(None);
        }
        let mut value = [0; CAPABILITIES_MAX];
        match fgetxattr(&self.0, CAPABILITIES, &mut value) {
            Ok(len) => Ok(value.get(..len).map(<[u8]>::to_vec)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The kernel takes capabilities away when anybody writes. Only who may give them can put them
    /// back.
    fn put_capabilities_back(&self, before: &Stat, had: Option<Vec<u8>>) -> Result<()> {
        let Some(value) = had else { return Ok(()) };
        if self.capabilities(before)?.as_ref() == Some(&value) {
            return Ok(());
        }
        match fsetxattr(&self.0, CAPABILITIES, &value, XattrFlags::empty()) {
            Err(Errno::PERM) => Ok(()),
            other => other,
        }
    }

    /// The kernel takes setuid and setgid away when anybody but root writes.
    fn put_mode_back(&self, before: &Stat) -> Result<()> {
        let mode = lender::without_loan(before).0 & 0o7777;
        if mode & 0o6000 != 0 && fstat(&self.0)?.st_mode & 0o7777 != mode {
            let set = || fchmod(&self.0, Mode::from_raw_mode(mode));
            lender::change_mode(before, set)?;
        }
        Ok(())
    }
}

/// Seconds by which a modification time is moved: the first that the filesystem can keep. FAT knows
/// even seconds only, and every filesystem a latest one.
const MTIME_STEPS: [i64; 3] = [1, 2, -2];
/// Nanoseconds of the first step.
pub(in crate::volume) const MTIME_STEP: i64 = 1_000_000_000;
/// The attribute that has a file's capabilities, and its bytes at most (linux/capability.h).
const CAPABILITIES: &str = "security.capability";
const CAPABILITIES_MAX: usize = 24;
/// Bytes that are looked at in one call.
const CHUNK: usize = 256 * 1024;
