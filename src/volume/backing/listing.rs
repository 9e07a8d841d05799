//! What a directory of the backing filesystem holds.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fs::{FileType, RawDir};

use super::beneath::{self, BackingName};
use crate::volume::model::error::Result;

/// One entry, as the backing filesystem gave it.
#[derive(Debug)]
pub(in crate::volume) struct RawEntry {
    pub(in crate::volume) name: RawName,
    pub(in crate::volume) ino: u64,
    pub(in crate::volume) kind: FileType,
    pub(in crate::volume) next: u64,
}

/// The name of an entry.
#[derive(Debug)]
pub(in crate::volume) enum RawName {
    /// The directory itself, or the one above it.
    Dots(&'static str),
    Entry(BackingName),
    /// No filesystem should give such a name, and nothing is done with it.
    Odd,
}

/// The backing names that a freshly opened directory holds, without the dots.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn raw_names(fd: impl AsFd) -> Result<Vec<BackingName>> {
    let mut names = Vec::new();
    loop {
        let chunk = read_chunk(fd.as_fd())?;
        if chunk.is_empty() {
            return Ok(names);
        }
        names.extend(chunk.into_iter().filter_map(|entry| match entry.name {
            RawName::Entry(name) => Some(name),
            RawName::Dots(_) | RawName::Odd => None,
        }));
    }
}

/// The first backing name in `dir` that is `wanted`.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn find_raw(
    dir: impl AsFd,
    wanted: impl Fn(&BackingName) -> bool,
) -> Result<Option<BackingName>> {
    Ok(raw_names(beneath::reopen_dir(dir)?)?.into_iter().find(wanted))
}

pub(in crate::volume) fn read_chunk(fd: impl AsFd) -> Result<VecDeque<RawEntry>> {
    let mut buffer = vec![MaybeUninit::uninit(); CHUNK];
    let mut raw = RawDir::new(fd, &mut buffer);
    let mut entries = VecDeque::new();
    while let Some(entry) = raw.next() {
        let entry = entry?;
        entries.push_back(RawEntry {
            name: match entry.file_name().to_bytes() {
                b"." => RawName::Dots("."),
                b".." => RawName::Dots(".."),
                name => BackingName::new(name).map_or(RawName::Odd, RawName::Entry),
            },
            ino: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        if raw.is_buffer_empty() {
            break;
        }
    }
    Ok(entries)
}

/// Read at once from the backing directory.
const CHUNK: usize = 32 * 1024;
