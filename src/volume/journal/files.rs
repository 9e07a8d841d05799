//! The files of page journals: `.kmsfs/undo-<session>-0` and `-1`.
//!
//! **Crash order.** Both files are there, durably, before the first page is written over. They go
//! when everything of the session is durable, or when recovery has put every page back, durably. A
//! crash before that leaves files that are looked through once more, or that nobody needs; the next
//! session that changes the vault removes the latter.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{OFlags, fsync};
use rustix::io::Errno;

use super::left::LeftPages;
use super::page_journal::PageJournal;
use crate::envelope::SessionWord;
use crate::volume::backing::beneath::{self, BackingName};
use crate::volume::backing::contents::{Backing, BackingFile};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::own_file;
use crate::volume::model::error::Result;

/// Journals of crashed sessions that are used; there are no more crashes in a record.
const SESSIONS: usize = 16;
const PREFIX: &str = "undo-";

/// The page journals in a vault.
pub(in crate::volume) struct Found {
    /// What may be needed.
    pub(in crate::volume) left: LeftPages,
    /// Files that nobody needs: their session ended well, or was recovered, or is not known.
    pub(in crate::volume) strays: Vec<BackingName>,
}

/// Looks for journals. `is_needed` says of a session that it crashed, and what it was changing was
/// not looked through yet.
///
/// # Errors
/// Those of the backing filesystem, of the directory alone: a journal that cannot be opened, or is
/// no file of ours, is passed over.
pub(in crate::volume) fn find(
    meta: impl AsFd,
    is_needed: impl Fn(SessionWord) -> bool,
) -> Result<Found> {
    let meta = meta.as_fd();
    let (mut journals, mut strays) =
        (Vec::<(SessionWord, Vec<Arc<dyn Backing>>)>::new(), Vec::new());
    for name in raw_names(beneath::reopen_dir(meta)?)? {
        let Some(word) = session_of(&name) else { continue };
        if !is_needed(word) {
            strays.push(name);
            continue;
        }
        let file = match beneath::open_file(meta, &name, OFlags::RDONLY) {
            Ok(file) => Arc::new(BackingFile::new(file)),
            Err(error) => {
                log::error!("the page journal of session {word} cannot be opened: {error}");
                continue;
            }
        };
        match journals.iter_mut().find(|(known, _)| *known == word) {
            Some((_, parts)) => parts.push(file),
            None => journals.push((word, vec![file])),
        }
    }
    journals.sort_by_key(|(word, _)| std::cmp::Reverse(word.number()));
    journals.truncate(SESSIONS);
    Ok(Found { left: LeftPages::read(journals), strays })
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

/// Removes the journal of a session.
pub(in crate::volume) fn remove(meta: impl AsFd, session: SessionWord) {
    remove_all(meta, (0..2).filter_map(|part| name_of(session, part)));
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
    [0, 1].iter().any(|part| name_of(word, *part).as_ref() == Some(name)).then_some(word)
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
}
