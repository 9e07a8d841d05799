//! The files of page journals: `.kmsfs/undo-<session>-0` and `-1`.
//!
//! **Crash order.** The file of a record is there, durably, before the page is written over. They go
//! when everything of the session is durable, or when recovery has put every page back, durably. A
//! crash before that leaves files that are looked through once more, or that nobody needs; the next
//! session that changes the vault removes the latter.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::fsync;
use rustix::io::Errno;

use super::crashed::CrashedJournals;
use super::page_journal::PageJournal;
use super::record_file::{LateFile, RecordFile};
use crate::envelope::SessionWord;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::contents::{Backing, BackingFile};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::own_file;
use crate::volume::model::error::Result;

/// Journals of crashed sessions that are used; there are no more crashes in a record.
const SESSIONS: usize = 16;
/// Files of a journal.
const PARTS: u8 = 2;
const PREFIX: &str = "undo-";

/// The page journals in a vault.
pub(in crate::volume) struct Found {
    /// What may be needed.
    pub(in crate::volume) journals: CrashedJournals,
    /// Files that nobody needs: their session ended well, or was recovered, or is not known.
    pub(in crate::volume) strays: Vec<BackingName>,
}

/// Looks for journals. `is_needed` says of a session that it crashed, and what it was changing was
/// not looked through yet.
///
/// Whoever writes to the vault can make any number of such names, so all of them are counted before
/// one is opened. He gains nothing by names of his own that come first: he could as well remove ours.
///
/// # Errors
/// Those of the backing filesystem, of the directory alone: a journal that cannot be opened, or is
/// no file of ours, is passed over.
pub(in crate::volume) fn find(
    meta: impl AsFd,
    is_needed: impl Fn(SessionWord) -> bool,
) -> Result<Found> {
    let meta = meta.as_fd();
    let (mut words, mut strays) = (Vec::new(), Vec::new());
    for name in raw_names(beneath::reopen_dir(meta)?)? {
        match session_of(&name) {
            Some(word) if is_needed(word) => words.push(word),
            Some(_) => strays.push(name),
            None => {}
        }
    }
    words.sort_unstable_by_key(|word| std::cmp::Reverse((word.number(), word.bits())));
    words.dedup();
    if let Some(rest) = words.len().checked_sub(SESSIONS + 1) {
        log::error!("page journals of {} more sessions than can be are ignored", rest + 1);
    }
    words.truncate(SESSIONS);
    let journals = words.into_iter().map(|word| (word, open_parts(meta, word))).collect();
    Ok(Found { journals: CrashedJournals::read(journals), strays })
}

/// The files of a journal that are there and are ours.
fn open_parts(meta: BorrowedFd<'_>, word: SessionWord) -> Vec<Arc<dyn Backing>> {
    let mut parts = Vec::<Arc<dyn Backing>>::new();
    for name in (0..PARTS).filter_map(|part| name_of(word, part)) {
        match own_file::to_read(meta, &name) {
            Ok(Some(file)) => parts.push(Arc::new(BackingFile::new(file))),
            Ok(None) => {}
            Err(error) => {
                log::error!("the page journal of session {word} cannot be opened: {error}");
            }
        }
    }
    parts
}

/// Makes the journal of a session, durably.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn begin(
    meta: impl AsFd,
    session: SessionWord,
) -> Result<PageJournal, Errno> {
    let meta = meta.as_fd();
    let make = |part| -> Result<Arc<dyn Backing>, Errno> {
        let name = name_of(session, part).ok_or(Errno::INVAL)?;
        Ok(Arc::new(BackingFile::new(own_file::fresh(meta, &name)?)))
    };
    let parts = [make(0)?, make(1)?];
    fsync(meta)?;
    Ok(PageJournal::over(parts))
}

/// The journal of a session whose files could not be made, as on a full disk: they are made once a
/// record needs them, and until then a page that needs a record is not written over.
pub(in crate::volume) fn begin_late(
    meta: impl AsFd,
    session: SessionWord,
) -> Result<PageJournal, Errno> {
    let make = |part| -> Result<Arc<dyn RecordFile>, Errno> {
        let name = name_of(session, part).ok_or(Errno::INVAL)?;
        Ok(Arc::new(LateFile::new(beneath::reopen_dir(&meta)?, name)))
    };
    Ok(PageJournal::of([make(0)?, make(1)?]))
}

/// Removes the journal of a session.
pub(in crate::volume) fn remove(meta: impl AsFd, session: SessionWord) {
    remove_all(meta, (0..PARTS).filter_map(|part| name_of(session, part)));
}

/// Removes journals that nobody needs. What stays harms nobody.
pub(in crate::volume) fn remove_all(meta: impl AsFd, names: impl IntoIterator<Item = BackingName>) {
    for name in names {
        match own_file::remove(&meta, &name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => log::warn!("a page journal could not be removed: {error}"),
        }
    }
}

fn name_of(session: SessionWord, part: u8) -> Option<BackingName> {
    BackingName::new(format!("{PREFIX}{:016x}-{part}", session.bits()).into_bytes())
}

/// The session of a journal that has this name.
fn session_of(name: &BackingName) -> Option<SessionWord> {
    let text = std::str::from_utf8(name.bytes()).ok()?.strip_prefix(PREFIX)?;
    let (word, _) = text.split_once('-')?;
    let word = SessionWord::from_bits(i64::from_str_radix(word, 16).ok()?);
    (0..PARTS).any(|part| name_of(word, part).as_ref() == Some(name)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_is_a_journals() {
        let word = SessionWord::new(7, 9);
        for part in 0..2 {
            assert_eq!(session_of(&name_of(word, part).unwrap()), Some(word));
        }
        for name in
            ["undo-", "undo-7-0", "undo-000000038000000g-0", "undo-0000000380000009-2", "times"]
        {
            let name = BackingName::new(name.as_bytes()).unwrap();
            assert_eq!(session_of(&name), None, "{name:?}");
        }
    }

    /// Names of a planted journal cost a mount as many descriptors and reads as there were names.
    #[test]
    fn regression_only_as_many_journals_are_opened_as_there_can_be_and_none_that_is_not_ours() {
        let dir = std::env::temp_dir().join(format!("kmsfs-journals-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = |number, part| {
            let name = name_of(SessionWord::new(number, 1), part).unwrap();
            dir.join(std::str::from_utf8(name.bytes()).unwrap())
        };
        for number in 1..=40 {
            for part in 0..2 {
                std::fs::write(path(number, part), []).unwrap();
            }
        }
        // A further name of another file, a FIFO, a link, a directory.
        std::fs::hard_link(path(39, 0), dir.join("other")).unwrap();
        for number in 36..39 {
            std::fs::remove_file(path(number, 0)).unwrap();
        }
        let mode = rustix::fs::Mode::RUSR;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path(38, 0), kind, mode, 0).unwrap();
        std::os::unix::fs::symlink(path(40, 0), path(37, 0)).unwrap();
        std::fs::create_dir(path(36, 0)).unwrap();

        let meta = std::fs::File::open(&dir).unwrap();
        let found = find(&meta, |word| word.number() > 1).unwrap();
        let _ = std::fs::remove_dir_all(&dir);
        let words: Vec<_> = found.journals.sessions().iter().map(|word| word.number()).collect();
        assert_eq!(words, (25..=40).rev().collect::<Vec<_>>());
        let ours = |number| found.journals.covers(SessionWord::new(number, 1));
        assert!(ours(40) && ours(35) && (36..40).all(|number| !ours(number)));
        assert_eq!(found.strays.len(), 2);
    }
}
