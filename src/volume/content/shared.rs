//! What all files of a volume share: the session they are written in, the crashes that may explain
//! what is odd in them, and the announcements of changes (FORMAT section 12).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::io::Errno;

use super::spill::SpillCache;
use crate::envelope::{Cursor, FileHeader, SessionWord, Unrecovered};
use crate::id::FileId;
use crate::volume::journal::{CrashedJournals, PageJournal};
use crate::volume::model::error::Result;

/// Where a session announces which files it is about to change.
pub trait Announcements: Send + Sync {
    /// Makes durable that `file` will be changed, unless that is known already. Returns the
    /// generation that it stands in.
    ///
    /// # Errors
    /// `Io` when that could not be made durable: the file must not be changed.
    fn announce(&self, file: FileId) -> Result<u64>;

    /// The generation that announcements go to, from 1. An older one may be forgotten.
    fn generation(&self) -> u64;
}

/// What the files of a volume share.
pub struct Shared {
    session: SessionWord,
    crashes: RwLock<Crashes>,
    /// When the last crash ended.
    last_crash: AtomicI64,
    announcements: Option<Arc<dyn Announcements>>,
    /// Decrypted spill pages in memory, over all files.
    pub(super) cache: Arc<SpillCache>,
    /// Files in which recovery found bytes that cannot be read.
    spoiled: Mutex<HashSet<FileId>>,
    /// The state of some file on the disk is unknown, so this session cannot end cleanly.
    doubt: AtomicBool,
    /// How often a sync of the whole backing filesystem failed.
    failed_syncs: AtomicU64,
    /// Held during such a sync: whoever comes next must know how it ended.
    whole_sync: Mutex<()>,
    /// Takes old versions of pages that a power cut could tear, before they are overwritten.
    journal: Option<PageJournal>,
    /// Journals of sessions that crashed.
    crashed_journals: RwLock<Option<Arc<CrashedJournals>>>,
    has_crashed_journals: AtomicBool,
}

/// A filesystem takes its times from a clock that ticks only this often, at most: nanoseconds.
const CLOCK_STEP: i64 = 10_000_000;

#[derive(Default)]
struct Crashes {
    unrecovered: Vec<Unrecovered>,
    cursor: Option<Cursor>,
    /// Spans of those that were mended in this session.
    mended: Vec<(i64, i64)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::in_session(SessionWord::new(1, 0), Vec::new())
    }
}

impl Shared {
    /// What the files of a volume share in `session`, after these crashes. Nothing is announced:
    /// good for reading, and for volumes without a history.
    pub fn in_session(session: SessionWord, unrecovered: Vec<Unrecovered>) -> Self {
        Self {
            session,
            last_crash: AtomicI64::new(last_end(&unrecovered)),
            crashes: RwLock::new(Crashes { unrecovered, cursor: None, mended: Vec::new() }),
            announcements: None,
            cache: Arc::default(),
            spoiled: Mutex::default(),
            doubt: AtomicBool::new(false),
            failed_syncs: AtomicU64::new(0),
            whole_sync: Mutex::new(()),
            journal: None,
            crashed_journals: RwLock::default(),
            has_crashed_journals: AtomicBool::new(false),
        }
    }

    /// The same in a session that changes files.
    #[must_use]
    pub fn announcing(mut self, announcements: Arc<dyn Announcements>) -> Self {
        self.announcements = Some(announcements);
        self
    }

    /// The same with room for `pages` decrypted spill pages in memory.
    #[must_use]
    pub fn caching(mut self, pages: usize) -> Self {
        self.cache = Arc::new(SpillCache::of(pages));
        self
    }

    /// The same with a journal for pages that are written over.
    #[must_use]
    pub fn journaling(mut self, journal: PageJournal) -> Self {
        self.journal = Some(journal);
        self
    }

    /// Sets where pages that crashed sessions overwrote are looked for.
    pub fn set_crashed_journals(&self, journals: CrashedJournals) {
        self.has_crashed_journals.store(!journals.is_empty(), Ordering::Release);
        let journals = (!journals.is_empty()).then(|| Arc::new(journals));
        *self.crashed_journals.write() = journals;
    }

    /// The journals of crashed sessions, if there are any.
    pub(in crate::volume) fn crashed_journals(&self) -> Option<Arc<CrashedJournals>> {
        if !self.has_crashed_journals.load(Ordering::Acquire) {
            return None;
        }
        self.crashed_journals.read().clone()
    }

    /// The page journal of the session, if it has one.
    pub(in crate::volume) fn journal(&self) -> Option<&PageJournal> {
        self.journal.as_ref()
    }

    /// The session.
    pub fn session(&self) -> SessionWord {
        self.session
    }

    /// Where the session announces changes, if it makes any.
    pub(super) fn announcements(&self) -> Option<&dyn Announcements> {
        self.announcements.as_deref()
    }

    /// Replaces what is known of crashes: some are mended.
    pub fn set_crashes(&self, unrecovered: Vec<Unrecovered>, cursor: Option<Cursor>) {
        let mut crashes = self.crashes.write();
        let gone = |crash: &&Unrecovered| !unrecovered.iter().any(|left| left.word == crash.word);
        let mended: Vec<_> = crashes.unrecovered.iter().filter(gone).map(|c| c.span).collect();
        crashes.mended.extend(mended);
        self.last_crash.fetch_max(last_end(&unrecovered), Ordering::Relaxed);
        (crashes.unrecovered, crashes.cursor) = (unrecovered, cursor);
    }

    /// True if a crash may have left a wrong size for a file with this backing ctime, in nanoseconds
    /// since 1970: its size is a hint.
    pub fn is_suspect(&self, ctime: i64) -> bool {
        // Most files are older or younger than every crash, and most volumes had none.
        ctime <= self.last_crash.load(Ordering::Relaxed)
            && self.read().unrecovered.iter().any(|crash| {
                let (from, to) = crash.span;
                !crash.withheld && (from..=to).contains(&ctime)
            })
    }

    /// True if the size that was found with this backing ctime may have been put right since: the
    /// crash that made it a hint is mended.
    pub fn is_outdated(&self, ctime: i64) -> bool {
        ctime <= self.last_crash.load(Ordering::Relaxed)
            && self.read().mended.iter().any(|(from, to)| (*from..=*to).contains(&ctime))
    }

    /// How many crashed sessions are not mended yet, and how many of these nobody has agreed to
    /// believe.
    pub fn crashes(&self) -> (u64, u64) {
        let crashes = self.read();
        let withheld = crashes.unrecovered.iter().filter(|crash| crash.withheld).count();
        (crashes.unrecovered.len() as u64, withheld as u64)
    }

    /// True if any crash that may excuse something is not mended yet.
    pub fn has_crashed(&self) -> bool {
        self.last_crash.load(Ordering::Relaxed) > i64::MIN
            && self.read().unrecovered.iter().any(|crash| !crash.withheld)
    }

    /// True if a file with this backing ctime was changed in a crashed session that is not mended
    /// yet, or since. The clock may have been put back at the crash, so there is no end.
    pub(super) fn changed_in_crash(&self, ctime: i64) -> bool {
        let began = |crash: &Unrecovered| ctime >= crash.span.0.saturating_sub(CLOCK_STEP);
        self.read().unrecovered.iter().any(|crash| !crash.withheld && began(crash))
    }

    /// Notes that the disk may hold something else than was written.
    pub(in crate::volume) fn doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
    }

    /// Syncs the whole backing filesystem, one caller after the other: the kernel tells a failure to
    /// the first alone.
    ///
    /// # Errors
    /// Those of `sync`.
    pub(in crate::volume) fn sync_whole(
        &self,
        sync: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let _turn = self.whole_sync.lock();
        let orphans = self.journal.as_ref().map(PageJournal::orphans);
        sync().inspect_err(|_| self.note_failed_sync())?;
        if let Some(orphans) = orphans {
            orphans.release();
        }
        Ok(())
    }

    /// A sync of the whole backing filesystem failed, and does not say of which file.
    pub(in crate::volume) fn note_failed_sync(&self) {
        self.failed_syncs.fetch_add(1, Ordering::AcqRel);
    }

    pub(in crate::volume) fn failed_syncs(&self) -> u64 {
        self.failed_syncs.load(Ordering::Acquire)
    }

    /// True if a file may be as a crash leaves it, because writing or syncing it failed.
    pub fn in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Relaxed)
    }

    /// Notes that recovery found bytes in a file that cannot be read.
    pub(super) fn note_spoiled(&self, file: FileId) {
        self.spoiled.lock().insert(file);
    }

    /// True if recovery has found that in this session.
    pub(super) fn is_spoiled(&self, file: FileId) -> bool {
        self.spoiled.lock().contains(&file)
    }

    /// The crashes that may explain what is odd in a file, and from which offset on.
    ///
    /// `both_good`: both slots of its header are authentic. An attacker who can damage the newer
    /// one must not get the leniency of the older (FORMAT section 12.3).
    pub(super) fn excuses(&self, header: &FileHeader, both_good: bool) -> (Vec<SessionWord>, u64) {
        let crashes = self.read();
        let words: Vec<_> = crashes
            .unrecovered
            .iter()
            .filter(|crash| explains(crash, header, both_good))
            .map(|crash| crash.word)
            .collect();
        let cursor = crashes.cursor.filter(|cursor| cursor.file == header.file);
        (words, cursor.map_or(0, |cursor| cursor.bytes))
    }

    /// True if a crash that nobody has agreed to believe yet would explain what is odd in the file: a
    /// new seal would make that impossible for ever.
    pub(super) fn awaits_consent(&self, header: &FileHeader) -> bool {
        let crashes = self.read();
        let mut withheld = crashes.unrecovered.iter().filter(|crash| crash.withheld);
        withheld.any(|crash| would_explain(crash, header, true))
    }

    /// True if this session crashed, and what it was changing was not looked through yet.
    pub(in crate::volume) fn is_unrecovered(&self, word: SessionWord) -> bool {
        self.still_unrecovered(&[word])
    }

    pub(super) fn still_unrecovered(&self, words: &[SessionWord]) -> bool {
        let crashes = self.read();
        crashes.unrecovered.iter().any(|crash| words.contains(&crash.word))
    }

    fn read(&self) -> RwLockReadGuard<'_, Crashes> {
        self.crashes.read()
    }
}

fn last_end(unrecovered: &[Unrecovered]) -> i64 {
    unrecovered.iter().map(|crash| crash.span.1).max().unwrap_or(i64::MIN)
}

/// True if the crash may explain what is odd in a file that says this of itself.
///
/// *Source*: FORMAT section 12.3.
pub(in crate::volume) fn explains(
    crash: &Unrecovered,
    header: &FileHeader,
    both_good: bool,
) -> bool {
    !crash.withheld && would_explain(crash, header, both_good)
}

/// The same whether or not anybody has agreed to believe the crash.
fn would_explain(crash: &Unrecovered, header: &FileHeader, both_good: bool) -> bool {
    // A damaged slot may have said that the file is mended. Not so where somebody said that
    // everything is to be believed, and in volumes from before such headers.
    let proven = both_good || crash.counted;
    let born = header.flags.open && header.seal.session == crash.word;
    let keys = header.recipients.iter().map(|recipient| recipient.key);
    proven
        && (born || crash.announced(header.file, header.seal.session))
        && !crash.is_done_for(header.file, keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Intents;

    /// An lstat that came before the end of recovery, and was looked at after it, showed a size that
    /// the file had not any more.
    #[test]
    fn regression_a_size_from_before_a_recovery_is_known_to_be_old() {
        let crash = Unrecovered {
            word: SessionWord::new(1, 11),
            counted: false,
            withheld: false,
            span: (100, 200),
            intents: Intents::default(),
            listed: false,
            waiting: None,
        };
        let shared = Shared::in_session(SessionWord::new(2, 22), vec![crash]);
        assert!(shared.is_suspect(150) && !shared.is_outdated(150));
        shared.set_crashes(Vec::new(), None);
        assert!(!shared.is_suspect(150) && shared.is_outdated(150));
        assert!(!shared.is_outdated(50) && !shared.is_outdated(250));
    }
}
