//! The page journals of crashed sessions: pages as they were before they were written
//! over, in case they tore.
//!
//! Nothing here is believed. A page that is found is opened like one in its place, with the file's
//! key, its id and its page number, and whoever could write a journal could put the same bytes into
//! that place. Nor does a journal get the memory or the time that it asks for: what is read, and how
//! many pages are kept in mind, is bounded over all journals.
//!
//! A journal counts whole or not at all. Of one that is cut off nobody knows whether a page that is
//! found is the one that was durable last, nor whether one that is missing was never there.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustix::io::Errno;

use crate::envelope::layout::{PAGE_LEN, PageNo};
use crate::envelope::{SessionWord, UNDO_HEADER, UndoRecord};
use crate::id::FileId;
use crate::volume::backing::contents::Backing;

/// Pages that are kept in mind, over all journals.
const PAGES: usize = 1 << 18;
/// Bytes of records that are looked at, over all journals.
const BYTES: u64 = 1 << 30;
/// Bytes that are looked at in one call.
const CHUNK: usize = 1 << 20;
/// Files of a journal.
const PARTS: usize = 2;

/// The journals of crashed sessions, with the pages that they hold.
#[derive(Default)]
pub struct CrashedJournals {
    /// Newest first.
    sessions: Vec<SessionWord>,
    /// Those of them whose journals were read to the end.
    whole: Vec<SessionWord>,
    parts: Vec<Arc<dyn Backing>>,
    /// Of each file and page the newest version of each session, the newest session first.
    pages: Vec<PageLocation>,
}

/// Where a version of a page is.
#[derive(Debug, Clone, Copy)]
struct PageLocation {
    file: FileId,
    inode: u64,
    page: u64,
    offset: u64,
    /// Of the sessions, which.
    session: u16,
    part: u16,
    start: u16,
    stored: u16,
}

/// Why a journal does not count.
enum Unusable {
    Parts(usize),
    Io(Errno),
    Long,
    ManyPages,
}

/// The records of a file, one behind the other, each with a higher number: behind the last may be
/// what the file held before.
struct Records<'a> {
    file: &'a dyn Backing,
    end: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file, and where the next record begins in the buffer.
    begin: u64,
    at: usize,
    last: Option<u64>,
}

/// What may still be read.
struct Budget {
    bytes: u64,
    pages: usize,
}

impl CrashedJournals {
    /// Looks through the journals of these sessions, newest first. What is no record ends a file.
    pub fn read(journals: Vec<(SessionWord, Vec<Arc<dyn Backing>>)>) -> Self {
        let mut found = Self::default();
        let mut budget = Budget { bytes: BYTES, pages: PAGES };
        for (session, (word, parts)) in (0_u16..).zip(journals) {
            found.sessions.push(word);
            match found.scan(session, &parts, &mut budget) {
                Ok(()) => {
                    found.whole.push(word);
                    found.parts.extend(parts);
                }
                Err(why) => log::warn!("the page journal of session {word} is ignored: {why}"),
            }
        }
        found.pages.sort_unstable_by_key(|at| (at.file, at.page, at.session));
        found
    }

    /// True if no session left anything.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions that left something, newest first.
    pub(in crate::volume) fn sessions(&self) -> &[SessionWord] {
        &self.sessions
    }

    /// True if everything is known that this session wrote down before it wrote over it.
    pub fn covers(&self, session: SessionWord) -> bool {
        self.whole.contains(&session)
    }

    /// True if there is a page of this file.
    pub fn has(&self, file: FileId) -> bool {
        !self.of(file, 0..=u64::MAX).is_empty()
    }

    /// True if there is this page of the file.
    pub(in crate::volume) fn has_page(&self, file: FileId, page: PageNo) -> bool {
        !self.of(file, page.0..=page.0).is_empty()
    }

    /// The pages that there are of the file with this id and inode.
    pub(in crate::volume) fn pages_of(&self, file: FileId, inode: u64) -> Vec<PageNo> {
        let found = self.of_inode(file, inode, 0..=u64::MAX);
        let mut pages: Vec<_> = found.map(|at| PageNo(at.page)).collect();
        pages.dedup();
        pages
    }

    /// The versions of a page that there are, the newest first, each as a whole page.
    pub(in crate::volume) fn versions(
        &self,
        (file, inode): (FileId, u64),
        page: PageNo,
    ) -> impl Iterator<Item = Vec<u8>> {
        self.of_inode(file, inode, page.0..=page.0).filter_map(|at| self.version(at))
    }

    /// What there is of this inode, among the pages with its file id. In a copy of the vault no inode
    /// has its number: then the id is enough, if it was that of one inode alone.
    fn of_inode(
        &self,
        file: FileId,
        inode: u64,
        pages: std::ops::RangeInclusive<u64>,
    ) -> impl Iterator<Item = &PageLocation> {
        let all = self.of(file, 0..=u64::MAX);
        let is_known = all.iter().any(|at| at.inode == inode);
        let one = all.first().map(|first| first.inode);
        let is_one = all.iter().all(|at| Some(at.inode) == one);
        let counts = move |at: &&PageLocation| at.inode == inode || (!is_known && is_one);
        self.of(file, pages).iter().filter(counts)
    }

    fn of(&self, file: FileId, pages: std::ops::RangeInclusive<u64>) -> &[PageLocation] {
        let key = |at: &PageLocation| (at.file, at.page);
        let (from, to) = ((file, *pages.start()), (file, *pages.end()));
        let start = self.pages.partition_point(|at| key(at) < from);
        let end = self.pages.partition_point(|at| key(at) <= to);
        self.pages.get(start..end).unwrap_or_default()
    }

    fn version(&self, at: &PageLocation) -> Option<Vec<u8>> {
        let mut page = vec![0; PAGE_LEN];
        let (start, stored) = (usize::from(at.start), usize::from(at.stored));
        let room = page.get_mut(start..start + stored)?;
        let read = self.parts.get(usize::from(at.part))?.read_at(room, at.offset);
        (read == Ok(stored)).then_some(page)
    }

    /// Notes the newest record of each page of a session.
    fn scan(
        &mut self,
        session: u16,
        parts: &[Arc<dyn Backing>],
        budget: &mut Budget,
    ) -> Result<(), Unusable> {
        if parts.len() != PARTS {
            return Err(Unusable::Parts(parts.len()));
        }
        let mut newest = HashMap::<(FileId, u64, u64), (u64, PageLocation)>::new();
        for (number, file) in (self.parts.len()..).zip(parts) {
            let part = u16::try_from(number).unwrap_or(u16::MAX);
            let mut records = Records::of(&**file)?;
            while let Some((offset, record)) = records.next()? {
                let length = record.length() as u64;
                budget.bytes = budget.bytes.checked_sub(length).ok_or(Unusable::Long)?;
                let at = PageLocation::of(&record, (session, part, offset));
                let known =
                    newest.entry((at.file, at.inode, at.page)).or_insert((record.sequence, at));
                if known.0 < record.sequence {
                    *known = (record.sequence, at);
                }
                if newest.len() > budget.pages {
                    return Err(Unusable::ManyPages);
                }
            }
        }
        budget.pages -= newest.len();
        self.pages.reserve_exact(newest.len());
        self.pages.extend(newest.into_values().map(|(_, at)| at));
        Ok(())
    }
}

impl PageLocation {
    fn of(record: &UndoRecord, (session, part, offset): (u16, u16, u64)) -> Self {
        Self {
            file: record.file,
            inode: record.inode,
            page: record.page.0,
            offset: offset + UNDO_HEADER as u64,
            session,
            part,
            start: record.start,
            stored: record.stored,
        }
    }
}

impl<'a> Records<'a> {
    fn of(file: &'a dyn Backing) -> Result<Self, Unusable> {
        let end = file.length()?;
        Ok(Self { file, end, buffer: Vec::new(), begin: 0, at: 0, last: None })
    }

    /// The next record, and where it begins in the file.
    fn next(&mut self) -> Result<Option<(u64, UndoRecord)>, Unusable> {
        if self.buffer.len() < self.at + UNDO_HEADER + PAGE_LEN {
            self.fill()?;
        }
        let found = UndoRecord::parse(self.buffer.get(self.at..).unwrap_or_default());
        let is_next = |record: &UndoRecord| self.last.is_none_or(|last| record.sequence > last);
        let Some(record) = found.filter(is_next) else { return Ok(None) };
        let offset = self.begin + self.at as u64;
        self.last = Some(record.sequence);
        self.at += record.length();
        Ok(Some((offset, record)))
    }

    fn fill(&mut self) -> Result<(), Unusable> {
        if self.begin + self.buffer.len() as u64 >= self.end {
            return Ok(());
        }
        self.begin += self.at as u64;
        self.at = 0;
        self.buffer.resize(CHUNK, 0);
        let got = self.file.read_at(&mut self.buffer, self.begin)?;
        self.buffer.truncate(got);
        Ok(())
    }
}

impl From<Errno> for Unusable {
    fn from(error: Errno) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts(found) => write!(f, "of its {PARTS} files {found} are there"),
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::Long => write!(f, "it is longer than any session makes one"),
            Self::ManyPages => write!(f, "it has more pages than any session writes down"),
        }
    }
}

impl fmt::Debug for CrashedJournals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashedJournals").field("pages", &self.pages.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::backing::memory::MemoryFile;

    const FILE: FileId = FileId::from_bytes([9; 16]);
    const INODE: u64 = 7;

    /// A journal with these pages, which have this byte each.
    fn journal(pages: impl Iterator<Item = u64>, byte: u8) -> Vec<Arc<dyn Backing>> {
        let mut bytes = Vec::new();
        for (sequence, page) in (1..).zip(pages) {
            UndoRecord::append(&mut bytes, sequence, (FILE, INODE), (PageNo(page), 0), &[byte]);
        }
        vec![Arc::new(MemoryFile::new(bytes)), Arc::new(MemoryFile::default())]
    }

    fn word(number: u32) -> SessionWord {
        SessionWord::new(number, 1)
    }

    fn versions(journals: &CrashedJournals, page: u64) -> Vec<u8> {
        journals.versions((FILE, INODE), PageNo(page)).map(|page| page[0]).collect()
    }

    #[test]
    fn the_newest_session_counts_first() {
        let journals = vec![
            (word(3), journal([4, 2].into_iter(), 3)),
            (word(2), journal([2, 1, 2].into_iter(), 2)),
        ];
        let journals = CrashedJournals::read(journals);
        assert_eq!(journals.pages_of(FILE, INODE), [PageNo(1), PageNo(2), PageNo(4)]);
        assert_eq!((versions(&journals, 2), versions(&journals, 1)), (vec![3, 2], vec![2]));
        assert!(journals.has_page(FILE, PageNo(4)) && !journals.has_page(FILE, PageNo(3)));
        assert!(journals.has(FILE) && !journals.has(FileId::from_bytes([8; 16])));
    }

    /// Whoever writes to the vault made the daemon keep as many pages in mind as he liked.
    #[test]
    fn regression_a_journal_of_more_pages_than_any_is_ignored_and_the_others_count() {
        let many = 0..PAGES as u64 + 1;
        let journals =
            CrashedJournals::read(vec![(word(3), journal(many, 3)), (word(2), journal(7..8, 2))]);
        assert_eq!(journals.sessions(), [word(3), word(2)]);
        assert!(!journals.covers(word(3)) && journals.covers(word(2)));
        assert_eq!(journals.pages_of(FILE, INODE), [PageNo(7)]);
        assert_eq!(versions(&journals, 7), [2]);
    }

    /// A page that is missing in what is left of a journal may be in what is not.
    #[test]
    fn half_a_journal_is_none() {
        let mut half = journal(0..5, 1);
        half.pop();
        let journals = CrashedJournals::read(vec![(word(2), half)]);
        assert!(!journals.is_empty() && !journals.has(FILE) && !journals.covers(word(2)));
    }

    /// A file that was restored under its old name has the id, and the key, of the one that was renamed.
    #[test]
    fn regression_two_inodes_with_one_id_do_not_stand_for_each_other() {
        let mut bytes = Vec::new();
        for (sequence, inode, byte) in [(1, 7, b'a'), (2, 8, b'b')] {
            UndoRecord::append(&mut bytes, sequence, (FILE, inode), (PageNo(1), 0), &[byte]);
        }
        UndoRecord::append(&mut bytes, 3, (FILE, 8), (PageNo(2), 0), b"b");
        let files: [Arc<dyn Backing>; 2] =
            [Arc::new(MemoryFile::new(bytes)), Arc::new(MemoryFile::default())];
        let journals = CrashedJournals::read(vec![(word(2), files.to_vec())]);
        let of = |inode| {
            let found = journals.versions((FILE, inode), PageNo(1));
            (journals.pages_of(FILE, inode).len(), found.map(|page| page[0]).collect::<Vec<_>>())
        };
        assert_eq!((of(7), of(8), of(9)), ((1, vec![b'a']), (2, vec![b'b']), (0, vec![])));
        let copied = CrashedJournals::read(vec![(word(2), journal(4..5, 1))]);
        assert_eq!(copied.pages_of(FILE, 99), [PageNo(4)]);
    }

    #[test]
    fn records_are_found_across_the_chunks_in_which_they_are_read() {
        let many = 3 * CHUNK as u64 / 57;
        let journals = CrashedJournals::read(vec![(word(2), journal(0..many, 1))]);
        assert_eq!(journals.pages_of(FILE, INODE).len() as u64, many);
        assert_eq!(versions(&journals, many - 1), [1]);
    }
}
