//! What crashed sessions left in their page journals: pages as they were before they were written
//! over, in case they tore.
//!
//! Nothing here is believed. A page that is found is opened like one in its place, with the file's
//! key, its id and its page number, and whoever could write a journal could put the same bytes into
//! that place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::page_journal::MOST;
use crate::envelope::layout::{PAGE_LEN, PageNo};
use crate::envelope::{SessionWord, UNDO_HEADER, UndoRecord};
use crate::id::FileId;
use crate::volume::backing::contents::Backing;

/// Pages that are kept in mind, over all journals.
const PAGES: usize = 1 << 20;
/// Bytes that are looked at in one call.
const CHUNK: usize = 1 << 20;

/// The pages that journals of crashed sessions have.
#[derive(Default)]
pub struct LeftPages {
    sessions: Vec<SessionWord>,
    parts: Vec<Arc<dyn Backing>>,
    /// Of each file and page the newest version of each session, the newest session first.
    files: HashMap<FileId, BTreeMap<u64, Vec<At>>>,
    count: usize,
}

/// Where a version of a page is.
#[derive(Debug, Clone, Copy)]
struct At {
    /// Of the sessions, which.
    session: usize,
    part: usize,
    offset: u64,
    record: UndoRecord,
}

impl LeftPages {
    /// Looks through the journals of these sessions, newest first: each is a file or two. What is no
    /// record ends a file, and what cannot be read is passed over.
    pub fn read(journals: Vec<(SessionWord, Vec<Arc<dyn Backing>>)>) -> Self {
        let mut left = Self::default();
        for (session, (word, parts)) in journals.into_iter().enumerate() {
            left.sessions.push(word);
            for part in parts {
                let number = left.parts.len();
                if let Err(error) = left.scan(session, number, &*part) {
                    log::error!("the page journal of session {word} cannot be read: {error}");
                }
                left.parts.push(part);
            }
        }
        left
    }

    /// True if no session left anything.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The sessions that left something, newest first.
    pub(in crate::volume) fn sessions(&self) -> &[SessionWord] {
        &self.sessions
    }

    /// True if this session wrote down what it was about to write over.
    pub fn covers(&self, session: SessionWord) -> bool {
        self.sessions.contains(&session)
    }

    /// True if there is a page of this file.
    pub fn has(&self, file: FileId) -> bool {
        self.files.contains_key(&file)
    }

    /// The pages of this file that there are.
    pub(in crate::volume) fn pages_of(&self, file: FileId) -> Vec<PageNo> {
        let pages = self.files.get(&file).map(|pages| pages.keys().copied().map(PageNo));
        pages.into_iter().flatten().collect()
    }

    /// The versions of a page that there are, the newest first, each as a whole page.
    pub(in crate::volume) fn versions(
        &self,
        file: FileId,
        page: PageNo,
    ) -> impl Iterator<Item = Vec<u8>> {
        let found = self.files.get(&file).and_then(|pages| pages.get(&page.0));
        found.into_iter().flatten().filter_map(|at| self.version(at))
    }

    fn version(&self, at: &At) -> Option<Vec<u8>> {
        let mut page = vec![0; PAGE_LEN];
        let (start, stored) = (usize::from(at.record.start), usize::from(at.record.stored));
        let room = page.get_mut(start..start + stored)?;
        let read = self.parts.get(at.part)?.read_at(room, at.offset + UNDO_HEADER as u64);
        (read == Ok(stored)).then_some(page)
    }

    /// Records in a row, each with a higher number: behind them may be what the file held before.
    fn scan(
        &mut self,
        session: usize,
        part: usize,
        file: &dyn Backing,
    ) -> Result<(), rustix::io::Errno> {
        let end = file.length()?.min(MOST);
        let (mut buffer, mut begin, mut at) = (Vec::new(), 0, 0);
        let mut last = None;
        while begin + (at as u64) < end {
            if buffer.len() < at + UNDO_HEADER + PAGE_LEN && begin + (buffer.len() as u64) < end {
                begin += at as u64;
                let room = usize::try_from(end - begin).unwrap_or(CHUNK).min(CHUNK);
                (buffer, at) = (vec![0; room], 0);
                let got = file.read_at(&mut buffer, begin)?;
                buffer.truncate(got);
            }
            let record = UndoRecord::parse(buffer.get(at..).unwrap_or_default());
            let next = |record: &UndoRecord| last.is_none_or(|last| record.sequence > last);
            let Some(record) = record.filter(next) else { break };
            last = Some(record.sequence);
            self.note(At { session, part, offset: begin + at as u64, record });
            at += record.length();
        }
        Ok(())
    }

    fn note(&mut self, at: At) {
        if self.count >= PAGES {
            return;
        }
        let pages = self.files.entry(at.record.file).or_default();
        let known = pages.entry(at.record.page.0).or_default();
        match known.iter_mut().find(|known| known.session == at.session) {
            Some(known) if known.record.sequence < at.record.sequence => *known = at,
            Some(_) => {}
            None => {
                known.push(at);
                self.count += 1;
                if self.count == PAGES {
                    log::error!(
                        "the page journals have more than {PAGES} pages: the rest is ignored"
                    );
                }
            }
        }
    }
}

impl std::fmt::Debug for LeftPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeftPages").field("pages", &self.count).finish_non_exhaustive()
    }
}
