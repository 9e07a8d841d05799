//! Listing directories.
//!
//! The offset of an entry is the cookie that the backing filesystem gave for the one after it, so
//! it stays right while the directory changes and seekdir works as it does there.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::fs::{SeekFrom, fstat, seek};

use crate::envelope::is_hidden;
use crate::volume::backing::accesses;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::identity::InodeIdentity;
use crate::volume::backing::listing::{RawEntry, RawName, read_chunk};
use crate::volume::engine::Volume;
use crate::volume::files::dir_stream::{DirStream, Position};
use crate::volume::model::attr::{Attr, FileKind};
use crate::volume::model::clock;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::options::AccessTimes;
use crate::volume::namespace::descriptor::Copies;
use crate::volume::namespace::dir::Dir;
use crate::volume::namespace::dir_rules::Expected;
use crate::volume::namespace::inode::ROOT;
use crate::volume::namespace::listings::Listing;
use crate::volume::namespace::names;
use crate::volume::ops::reach::lookup::Entered;

/// One entry of a listing.
#[derive(Debug)]
pub struct DirEntry {
    /// Plaintext name.
    pub name: Vec<u8>,
    /// Inode number.
    pub ino: u64,
    /// Kind of file.
    pub kind: FileKind,
    /// Where the listing goes on after this entry.
    pub next: u64,
    /// The attributes, if they were asked for; the kernel then holds a lookup.
    pub attr: Option<Attr>,
}

/// What the receiver of a listing says to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// The entry was taken.
    Taken,
    /// There is no room: the entry was not taken.
    Full,
}

/// What a listing contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Names, inode numbers and kinds.
    Names,
    /// The attributes as well; each counts as a lookup.
    Attributes,
}

impl Volume {
    /// Opens a directory for listing.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn open_dir_stream(&self, ino: u64) -> Result<DirStream> {
        let fd = beneath::reopen_dir(&*self.dir(ino)?)?;
        if self.tree.options.access_times == AccessTimes::Never {
            accesses::ignore(&fd);
        }
        let heard = self.tree.errors.sample(ino);
        Ok(DirStream { ino, fd, position: Mutex::default(), kept: false, heard })
    }

    /// Opens a directory for listing by a kernel that may keep listings, and says whether what it has of
    /// this one is right.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub fn open_listing(&self, ino: u64) -> Result<(DirStream, Listing)> {
        let stream = self.open_dir_stream(ino)?;
        let listing = self.tree.listings.open(ino, self.listing_state(&stream), Instant::now());
        Ok((DirStream { kept: listing != Listing::Passing, ..stream }, listing))
    }

    /// A fingerprint of what the directory of `stream` lists. `None` where its names are not shown, and
    /// where it has just changed: a change within one tick of the clock need not show.
    fn listing_state(&self, stream: &DirStream) -> Option<u64> {
        let era = self.tree.dirs.era();
        let dir = self.dir(stream.ino).ok()?;
        if dir.keys().is_err() || dir.misplaced().is_some() {
            return None;
        }
        let stat = fstat(&stream.fd).ok()?;
        let settled = clock::now_nanos().checked_sub(clock::ctime(&stat))? >= SETTLED;
        let state = (stat.st_ino, stat.st_size, clock::mtime(&stat), clock::ctime(&stat));
        settled.then(|| self.tree.hasher.hash_one((state, era.of_names())))
    }

    /// Lists from `offset` (0 is the start) until `sink` is full or the directory ends.
    ///
    /// # Errors
    /// Those of the backing filesystem. Entries that cannot be read are left out, not an error.
    pub fn read_dir(
        &self,
        stream: &DirStream,
        offset: u64,
        detail: Detail,
        mut sink: impl FnMut(&DirEntry) -> Sink,
    ) -> Result<()> {
        let dir = self.stream_dir(stream)?;
        if stream.kept && dir.keys().is_err() {
            self.tree.listings.spoil(stream.ino);
        }
        let mut position = stream.position.lock();
        if position.offset != offset || offset == 0 {
            seek(&stream.fd, SeekFrom::Start(offset))?;
            *position = Position { ahead: VecDeque::new(), offset };
        }
        loop {
            if position.ahead.is_empty() {
                position.ahead = match read_chunk(&stream.fd) {
                    // The kernel hears of what was taken now, and of the error next time.
                    Err(_) if position.offset != offset => return Ok(()),
                    read => read?,
                };
            }
            let Some(raw) = position.ahead.front() else { return Ok(()) };
            if let Some((entry, before)) = self.show(&dir, raw, detail) {
                if sink(&entry) == Sink::Full {
                    if entry.attr.is_some() {
                        self.take_back(entry.ino, before);
                    }
                    return Ok(());
                }
                if stream.kept && detail == Detail::Names {
                    self.tree.listings.outdate(stream.ino);
                }
            }
            position.offset = raw.next;
            position.ahead.pop_front();
        }
    }

    /// The directory of a stream, which may have been removed since it was opened.
    fn stream_dir(&self, stream: &DirStream) -> Result<Arc<Dir>> {
        match self.dir(stream.ino) {
            Err(VolumeError::Stale) => {
                let fd = rustix::io::fcntl_dupfd_cloexec(&stream.fd, 0)?;
                let copies = Copies::read(&fd);
                let removed = Dir::open(stream.ino, fd, copies, Expected::Nothing, self.opener())?;
                Ok(Arc::new(removed))
            }
            known => known,
        }
    }

    /// An entry of the listing; with attributes, and the identity that the kernel knew under its number.
    fn show(
        &self,
        dir: &Arc<Dir>,
        raw: &RawEntry,
        detail: Detail,
    ) -> Option<(DirEntry, Option<InodeIdentity>)> {
        let entry = match &raw.name {
            RawName::Dots(dots) => return Some((self.show_dots(dir, raw, dots), None)),
            RawName::Entry(entry) => entry,
            RawName::Odd => return None,
        };
        if is_hidden(entry.bytes()) {
            if self.tree.is_stale_temp(entry) && !self.tree.options.read_only {
                self.remove_leftover(dir, entry);
            }
            return None;
        }
        let (name, next) = (names::shown_name(dir, entry), raw.next);
        if detail == Detail::Names {
            let ino = self.tree.inodes.shown(raw.ino);
            let kind = FileKind::from_type(raw.kind).or_else(|| kind(dir, entry))?;
            return Some((DirEntry { name, ino, kind, next, attr: None }, None));
        }
        let Entered { attr, before } = self.enter_entry(dir, entry).ok()??;
        let entry = DirEntry { name, ino: attr.ino, kind: attr.kind, next, attr: Some(attr) };
        Some((entry, before))
    }

    fn show_dots(&self, dir: &Dir, raw: &RawEntry, dots: &str) -> DirEntry {
        let ino = if dir.ino() == ROOT { ROOT } else { self.tree.inodes.shown(raw.ino) };
        let name = dots.as_bytes().to_vec();
        let (kind, next) = (FileKind::Directory, raw.next);
        DirEntry { name, ino, kind, next, attr: None }
    }
}

/// For backing filesystems that do not say the kind in the entry.
fn kind(dir: &Dir, entry: &BackingName) -> Option<FileKind> {
    FileKind::from_mode(beneath::stat(dir, entry).ok()?.st_mode)
}

/// How long ago a directory must have changed for its times to tell the next change. Units: nanoseconds.
const SETTLED: i64 = 100_000_000;
