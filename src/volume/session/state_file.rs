//! The file of the state record: two copies, written in turn.
//!
//! **Crash order.** A write goes to the copy that is older, and is durable when it returns. A crash
//! on the way leaves the newer copy as it was; a torn copy is not authentic and does not count.
//! The file has its full length from the start, and is written over where it lies, so a full disk
//! cannot refuse a write.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{IFlags, OFlags, fdatasync, fstat, fsync, ioctl_getflags, ioctl_setflags};
use rustix::io::{Errno, IoSlice, ReadWriteFlags, pread, pwrite, pwritev2};

use crate::envelope::{EnvelopeError, STATE_SLOT, StateRecord, VolumeKeys};
use crate::volume::backing::beneath::{self, Name};
use crate::volume::backing::own_file;
use crate::volume::model::error::{Result, VolumeError};

/// The file, in the directory of what belongs to the volume.
const STATE: Name<'static> = Name::literal("state");
const NEW: Name<'static> = Name::literal("state.new");
const PAGE: usize = 4096;

/// The open file.
#[derive(Debug)]
pub(in crate::volume) struct StateFile(OwnedFd);

impl StateFile {
    /// Reads the newest authentic record; `None` if there is no such file or neither copy in it is
    /// authentic. `true`: the other copy is not authentic.
    ///
    /// # Errors
    /// `Newer` for a later format; those of the backing filesystem.
    pub(in crate::volume) fn read(
        meta: impl AsFd,
        keys: &VolumeKeys,
    ) -> Result<Option<(StateRecord, bool)>> {
        let (mut newest, mut damaged) = (None::<StateRecord>, false);
        for bytes in copies(meta)? {
            match StateRecord::open(&bytes, keys) {
                Ok(record) => {
                    if newest.as_ref().is_none_or(|known| known.sequence < record.sequence) {
                        newest = Some(record);
                    }
                }
                Err(EnvelopeError::Newer(what)) => return Err(VolumeError::Newer(what)),
                Err(_) => damaged = true,
            }
        }
        Ok(newest.map(|record| (record, damaged)))
    }

    /// Opens the file for writing and writes `record` into it, durably. Makes the file if it is
    /// missing or not one of ours.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn begin(
        meta: impl AsFd,
        record: &StateRecord,
        keys: &VolumeKeys,
    ) -> Result<Self> {
        let meta = meta.as_fd();
        if let Some(file) = own_file::to_write(meta, STATE)?
            && is_whole(&file)?
        {
            let file = Self(file);
            file.write(record, keys)?;
            return Ok(file);
        }
        Self::make(meta, record, keys)
    }

    /// Writes the record over the older copy, durably.
    ///
    /// # Errors
    /// Those of the backing filesystem; the newer copy is as it was.
    pub(in crate::volume) fn write(&self, record: &StateRecord, keys: &VolumeKeys) -> Result<()> {
        let mut bytes = record.encode(keys);
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        let offset = record.sequence % 2 * STATE_SLOT as u64;
        match pwritev2(&self.0, &[IoSlice::new(&bytes)], offset, ReadWriteFlags::DSYNC) {
            Ok(taken) if taken == bytes.len() => Ok(()),
            // A short write, or a filesystem without the flag.
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                write_all(&self.0, &bytes, offset)?;
                Ok(fdatasync(&self.0)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A crash before the rename leaves a file that the next attempt writes over.
    fn make(meta: impl AsFd, record: &StateRecord, keys: &VolumeKeys) -> Result<Self> {
        let meta = meta.as_fd();
        let file = Self(own_file::fresh(meta, NEW)?);
        write_in_place(&file.0);
        write_all(&file.0, &vec![0; 2 * STATE_SLOT], 0)?;
        file.write(record, keys)?;
        fdatasync(&file.0)?;
        own_file::put(meta, NEW, STATE)?;
        fsync(meta)?;
        Ok(file)
    }
}

/// Asks a filesystem that copies on write, as btrfs does, to write over this file where it lies: a full
/// disk would refuse a copy. Both records have a MAC, so nobody misses the checksums that it then
/// leaves out. Works only on an empty file.
fn write_in_place(file: &OwnedFd) {
    if let Ok(flags) = ioctl_getflags(file) {
        // Other filesystems do not know the flag, and need none.
        let _ = ioctl_setflags(file, flags | IFlags::NOCOW);
    }
}

/// Both copies, whatever they hold.
fn copies(meta: impl AsFd) -> Result<Vec<Vec<u8>>> {
    let file = match beneath::open_file(meta, STATE, OFlags::RDONLY) {
        // Something else lies in its place, which counts as nothing.
        Err(Errno::NOENT | Errno::STALE | Errno::LOOP | Errno::XDEV) => return Ok(Vec::new()),
        other => other?,
    };
    if !is_whole(&file)? {
        return Ok(Vec::new());
    }
    let read = |slot: usize| -> Result<Vec<u8>> {
        let mut bytes = vec![0; STATE_SLOT];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match pread(&file, rest, (slot * STATE_SLOT + done) as u64) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    };
    Ok(vec![read(0)?, read(1)?])
}

/// True if the file has room for both copies.
fn is_whole(file: &OwnedFd) -> Result<bool> {
    Ok(u64::try_from(fstat(file)?.st_size).is_ok_and(|size| size == 2 * STATE_SLOT as u64))
}

fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(file, rest, offset + done as u64) {
            Ok(taken) => done += taken,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
