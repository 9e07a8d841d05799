//! Copies pages to the page journal before they are overwritten where a power cut could tear them, and
//! makes room there (see [`crate::volume::journal`]).

use super::pages::is_untouched;
use super::{Content, State};
use crate::envelope::layout::{Block, PAGE_LEN, PageNo};
use crate::volume::backing::contents::Durability;
use crate::volume::journal::{OldPage, PageJournal};
use crate::volume::model::error::Result;

/// What the journal must say of a page before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// The bytes that it has: the last sync may have made them durable.
    Bytes(PageNo),
    /// That nothing of it is durable: the journal may say something else, from before it was cut off.
    Nothing(PageNo),
}

impl Content {
    /// Before the data pages of these blocks are overwritten or erased, journals durably what of them
    /// was durable at the last sync of the file.
    ///
    /// A page needs it once between two syncs. Without a journal this is one branch.
    ///
    /// # Errors
    /// `Io` when the journal takes no more: the pages must stay as they are.
    pub(super) fn journal_old_pages(
        &self,
        state: &mut State,
        first: Block,
        end: Block,
    ) -> Result<()> {
        let Some(journal) = self.shared.journal() else { return Ok(()) };
        let due = self.due(state, journal, first, end);
        if due.is_empty() {
            return Ok(());
        }
        let file = (state.ready()?.header.file, self.backing.number());
        let mut pages = vec![[0; PAGE_LEN]; due.len()];
        for (due, room) in due.iter().zip(&mut pages) {
            if let Due::Bytes(page) = due {
                self.read_pages(*page, std::slice::from_mut(room))?;
            }
        }
        let old: Vec<_> = due
            .iter()
            .zip(&pages)
            .map(|(due, bytes)| match due {
                Due::Bytes(page) => {
                    OldPage { page: *page, start: page.unit_start(), bytes: page.unit(bytes) }
                }
                Due::Nothing(page) => OldPage { page: *page, start: page.unit_start(), bytes: &[] },
            })
            .collect();
        let generation = state.marks.generation();
        Ok(journal.record(file, generation, &old, state.marks.pages.journaled_mut())?)
    }

    fn due(&self, state: &State, journal: &PageJournal, first: Block, end: Block) -> Vec<Due> {
        // Blocks past the proven end did not exist at the last sync: nothing durable can be lost there.
        let extent = &state.marks.extent;
        let had_header = state.marks.header.is_durable();
        let was_there = |block: Block| match block.0 {
            // It may be there without contents, too: erased, or in a file that has attributes alone.
            0 => had_header,
            _ => extent.reaches(block),
        };
        let file = state.ready.as_ref().map(|ready| ready.header.file);
        let last = file.filter(|_| end > extent.end()).and_then(|file| journal.last_page(file));
        let journals = self
            .shared
            .crashed_journals()
            .filter(|journals| file.is_some_and(|file| journals.has(file)));
        let has_record = |page: PageNo| {
            let is_left =
                || journals.as_ref().zip(file).is_some_and(|(l, file)| l.has_page(file, page));
            last.is_some_and(|last| page.0 <= last.0) || is_left()
        };
        let journaled = state.marks.pages.journaled();
        let due = |block: Block| match block.data_page() {
            page if journaled.has(page) => None,
            page if was_there(block) => Some(Due::Bytes(page)),
            // If the sync that would have decided which version is right failed, the older record stays.
            page if journaled.is_doubtful(page) => None,
            page => has_record(page).then_some(Due::Nothing(page)),
        };
        (first.0..end.0).map(Block).filter_map(due).collect()
    }

    /// Before a change, without a lock: if the journal is full, waits until this file no longer needs
    /// its records and the others have had time to be synced.
    pub(super) fn make_journal_room(&self) {
        let Some(journal) = self.shared.journal().filter(|journal| journal.is_pressed()) else {
            return;
        };
        if self.needs_journal()
            && let Err(error) = self.sync_alone(Durability::Contents)
        {
            log::error!("a file could not be synced for the page journal: {error}");
        }
        journal.wait_for_room();
    }

    /// Does the same between two steps of a long change.
    pub(super) fn sync_for_journal(&self, state: &mut State) {
        let pressed = self.shared.journal().is_some_and(PageJournal::is_pressed);
        if pressed
            && !state.marks.pages.journaled().is_empty()
            && let Err(error) = self.sync_locked(state)
        {
            log::error!("a file could not be synced for the page journal: {error}");
        }
    }

    /// Runs `attempt` once more if the disk had no room for the journal: once the other files that need
    /// records are synced, their room is free.
    pub(super) fn with_journal_room<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let cramped = || self.shared.journal().is_some_and(PageJournal::is_cramped);
        match attempt() {
            Err(error) if is_untouched(&error) && cramped() => {
                self.make_journal_room();
                attempt()
            }
            other => other,
        }
    }

    /// Before a change, syncs a file whose pages were overwritten and then cut off while a sync of the
    /// whole filesystem began: either version may be durable, and no record is right for both.
    pub(super) fn sync_cut_pages(&self, state: &mut State) {
        let behind = state.marks.extent.end().data_page();
        if state.marks.pages.journaled().is_doubtful_from(behind)
            && let Err(error) = self.sync_locked(state)
        {
            log::error!("a file could not be synced for the page journal: {error}");
        }
    }

    /// True if the file needs records of the journal, until it is synced.
    pub(in crate::volume) fn needs_journal(&self) -> bool {
        !self.read_state().marks.pages.journaled().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::open_in;
    use super::*;
    use crate::envelope::SessionWord;
    use crate::envelope::layout::Page;
    use crate::volume::backing::contents::Backing;
    use crate::volume::backing::memory::MemoryFile;
    use crate::volume::content::Shared;
    use crate::volume::journal::CrashedJournals;

    /// A file of eight blocks, synced, in a session with a page journal.
    struct Journaled {
        file: Arc<MemoryFile>,
        content: Content,
        journal: [Arc<MemoryFile>; 2],
    }

    const BLOCK: Block = Block(4);

    impl Journaled {
        fn new() -> Self {
            let (file, journal) = (Arc::<MemoryFile>::default(), <[Arc<MemoryFile>; 2]>::default());
            let parts = journal.clone().map(|part| part as Arc<dyn Backing>);
            let shared = Shared::default().journaling(PageJournal::over(parts));
            let content = open_in(&file, shared);
            let journaled = Self { file, content, journal };
            journaled.write(Block(0), 8, b'A');
            journaled.content.sync(Durability::Contents).unwrap();
            journaled
        }

        fn write(&self, first: Block, blocks: usize, byte: u8) {
            self.content.write(first.start(), &vec![byte; blocks * PAGE_LEN]).unwrap();
        }

        fn in_place(&self, block: Block) -> Page {
            let mut page = [0; PAGE_LEN];
            self.file.read_at(&mut page, block.data_page().offset()).unwrap();
            page
        }

        /// What recovery would put there.
        fn in_journal(&self, block: Block) -> Option<Vec<u8>> {
            let parts = self.journal.iter().map(|part| part.clone() as Arc<dyn Backing>).collect();
            let journals = CrashedJournals::read(vec![(SessionWord::new(1, 1), parts)]);
            let file = self.content.header().unwrap().file;
            journals.versions((file, self.file.number()), block.data_page()).next()
        }
    }

    /// What a sync of the filesystem made durable was written over meanwhile, and lost.
    #[test]
    fn regression_a_write_in_a_sync_of_everything_needs_a_record_of_its_own() {
        let it = Journaled::new();
        it.write(BLOCK, 1, b'B');
        let synced = it.in_place(BLOCK);
        let generation = it.content.before_sync().unwrap();
        it.write(BLOCK, 1, b'C');
        it.content.synced_elsewhere(generation).unwrap();
        assert_eq!(it.in_journal(BLOCK).unwrap(), synced);
        let (kept, known) = (it.in_place(BLOCK), it.journal[0].length().unwrap());
        it.write(BLOCK, 1, b'D');
        assert_eq!(it.journal[0].length().unwrap(), known, "it has one");
        assert_eq!(it.in_journal(BLOCK).unwrap(), synced);
        assert_ne!(it.in_place(BLOCK), kept);
    }

    #[test]
    fn regression_what_is_appended_before_a_sync_of_everything_is_kept_after_it() {
        let (it, block) = (Journaled::new(), Block(8));
        it.write(block, 1, b'B');
        let synced = it.in_place(block);
        let generation = it.content.before_sync().unwrap();
        it.write(block, 1, b'C');
        it.content.synced_elsewhere(generation).unwrap();
        assert_eq!(it.in_journal(block).unwrap(), synced);
    }

    /// The cut may be durable, or not: a record that is right for one loses or brings back bytes for
    /// the other.
    #[test]
    fn regression_a_cut_page_that_is_written_in_a_sync_of_everything_waits_for_a_sync_of_its_own() {
        let it = Journaled::new();
        it.write(BLOCK, 1, b'B');
        it.content.truncate(Block(2).start()).unwrap();
        let generation = it.content.before_sync().unwrap();
        assert!(it.in_journal(BLOCK).unwrap().iter().any(|byte| *byte != 0), "it may be needed");
        it.write(Block(2), 4, b'C');
        assert!(it.in_journal(BLOCK).unwrap().iter().all(|byte| *byte == 0));
        it.content.synced_elsewhere(generation).unwrap();
        assert!(it.in_journal(BLOCK).unwrap().iter().all(|byte| *byte == 0));
    }

    /// Until the cut is durable, what a power cut tears is what was written over before.
    #[test]
    fn a_page_with_a_record_since_the_last_sync_keeps_it_over_a_cut() {
        let it = Journaled::new();
        let durable = it.in_place(BLOCK);
        it.write(BLOCK, 1, b'B');
        it.content.truncate(Block(2).start()).unwrap();
        it.write(Block(2), 4, b'C');
        assert_eq!(it.in_journal(BLOCK).unwrap(), durable);
        it.content.sync(Durability::Contents).unwrap();
        it.content.truncate(Block(2).start()).unwrap();
        it.write(Block(2), 4, b'D');
        assert!(it.in_journal(BLOCK).unwrap().iter().all(|byte| *byte == 0));
    }
}
