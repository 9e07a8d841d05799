//! What an open file can do, besides reading and writing.

use rustix::io::Errno;

use crate::volume::backing::contents::Durability;
use crate::volume::content::{Reserve, SeekTo};
use crate::volume::engine::Volume;
use crate::volume::files::file::{FileHandle, Origin};
use crate::volume::model::error::Result;

/// What to do to a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Reserve space for it.
    Reserve(Reserve),
    /// Make it read as zeros.
    Zero(Reserve),
    /// Make it a hole.
    Punch,
}

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;
/// Bytes that one call copies at most, so that no request takes for ever.
const COPY_MAX: u64 = 64 << 20;

impl Volume {
    /// Makes a file durable as fsync(2) and fdatasync(2) do.
    ///
    /// # Errors
    /// Those of the backing filesystem. Each handle is told once of what was written before and lost
    /// since, whoever met the failure.
    pub fn sync_file(&self, handle: &FileHandle, what: Durability) -> Result<()> {
        let synced = self.sync_open(&handle.file, what);
        let told = handle.file.content().errors().tell(&handle.heard);
        synced.and(Ok(told?))
    }

    /// Reserves, clears or cuts out a range of a file.
    ///
    /// # Errors
    /// As a write; `Io(OPNOTSUPP)` where the backing filesystem cannot do it.
    pub fn allocate(
        &self,
        handle: &FileHandle,
        how: Allocate,
        offset: u64,
        length: u64,
    ) -> Result<()> {
        let content = handle.file.for_caller()?;
        handle.file.must_be_writable()?;
        let _writing = handle.writing();
        let done = match how {
            Allocate::Reserve(size) => return content.reserve(offset, length, size),
            Allocate::Zero(size) => content.zero(offset, length, size),
            Allocate::Punch => content.punch(offset, length),
        };
        // Some of it may be zeros now, and after an error the kernel keeps what it has cached.
        done.inspect_err(|_| self.files.note_outdated(handle.ino))
    }

    /// The kernel gave pages of a mapping back, and they were refused: it goes on showing them otherwise.
    pub fn refused_pages(&self, handle: &FileHandle) {
        self.files.note_outdated(handle.ino);
    }

    /// The offset of the next data or hole.
    ///
    /// # Errors
    /// `Io(NXIO)` when there is none.
    pub fn seek(&self, handle: &FileHandle, offset: u64, to: SeekTo) -> Result<u64> {
        Ok(handle.file.for_caller()?.seek(offset, to)?.ok_or(Errno::NXIO)?)
    }

    /// Copies up to `length` bytes from one open file to another and returns how many. At most
    /// 64 MiB go in one call.
    ///
    /// # Errors
    /// Those of reading and writing, if nothing was copied before.
    pub fn copy_range(
        &self,
        (from, from_offset): (&FileHandle, u64),
        (to, to_offset): (&FileHandle, u64),
        length: u64,
    ) -> Result<u64> {
        let (length, mut done) = (length.min(COPY_MAX), 0);
        let mut buffer = vec![0; CHUNK];
        while done < length {
            let wanted = usize::try_from(length - done).unwrap_or(CHUNK).min(CHUNK);
            let copied =
                from.file.read(from_offset + done, &mut buffer[..wanted]).and_then(|read| {
                    let read = buffer.get(..read).unwrap_or_default();
                    to.write(to_offset + done, read, Origin::Caller)
                });
            match copied {
                Ok(0) => break,
                Ok(count) => done += count as u64,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}
