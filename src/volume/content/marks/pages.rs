//! What is known of the pages of contents between two syncs of a file.

use std::collections::HashSet;

use crate::envelope::layout::{Block, PageNo};
use crate::volume::content::pages::{Synced, Written};
use crate::volume::journal::JournaledPages;

/// Pages of contents that were written since the last sync, or that one has made durable.
///
/// After a failed sync the disk may have dropped any of them, and says so once: they are owed, and
/// written again from what the kernel has in memory before a sync counts. *Crash*: the same bytes go
/// to the same pages, so each is as it was or as it is.
#[derive(Debug, Clone, Default)]
pub(in crate::volume::content) struct PageMarks {
    written: Written,
    /// Pages that a sync of this session has made durable.
    synced: Synced,
    /// Pages that the page journal has as the last sync made them durable.
    journaled: JournaledPages,
    /// Blocks that held older durable bytes and were partly rewritten since (R4).
    rewritten: HashSet<Block>,
    owed: bool,
}

impl PageMarks {
    /// The pages from `first` to `last` are about to be written.
    pub(in crate::volume::content) fn add(&mut self, first: PageNo, last: PageNo) {
        self.written.add(first, last);
    }

    /// Some of them were not written after all.
    pub(in crate::volume::content) fn blur(&mut self) {
        self.written.blur();
    }

    /// True if a sync of this session has made the page durable.
    pub(in crate::volume::content) fn is_durable(&self, page: PageNo) -> bool {
        self.synced.contains(page)
    }

    /// Notes that a block is rewritten in part. True if it was already since the last sync: its page
    /// may be on its way to the disk.
    pub(in crate::volume::content) fn is_rewritten_again(&mut self, block: Block) -> bool {
        !self.rewritten.insert(block)
    }

    /// What the page journal has.
    pub(in crate::volume::content) fn journaled(&self) -> &JournaledPages {
        &self.journaled
    }

    /// The same, to add to it.
    pub(in crate::volume::content) fn journaled_mut(&mut self) -> &mut JournaledPages {
        &mut self.journaled
    }

    /// True if pages are to be written again before a sync counts.
    pub(in crate::volume::content) fn is_owed(&self) -> bool {
        self.owed
    }

    /// The ranges of pages written since the last sync: each the first and the one behind the last.
    pub(in crate::volume::content) fn ranges(&self) -> &[(u64, u64)] {
        self.written.ranges()
    }

    /// All of them were written again.
    pub(in crate::volume::content) fn written_again(&mut self) {
        self.owed = false;
    }

    /// A sync failed.
    pub(in crate::volume::content) fn sync_failed(&mut self) {
        self.owed = !self.written.is_empty();
    }

    /// A sync covers what was written until `generation`; `all`: nothing was written since. What the
    /// page journal has of that is needed no more, whatever else the file owes.
    pub(in crate::volume::content) fn covered(&mut self, generation: u64, all: bool) {
        match all {
            _ if self.owed => {}
            true => self.journaled.release(),
            false => self.journaled.forget_before(generation),
        }
    }

    /// Everything is on the disk. Not `certain` after a failure: then no page is noted as durable.
    pub(in crate::volume::content) fn synced(&mut self, certain: bool) {
        self.rewritten.clear();
        if certain {
            self.synced.add(&self.written);
        }
        self.written.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> PageMarks {
        let mut pages = PageMarks::default();
        pages.add(PageNo(4), PageNo(6));
        pages
    }

    #[test]
    fn a_failed_sync_owes_what_was_written_until_it_is_written_again() {
        let mut pages = written();
        assert!(!pages.is_owed());
        pages.sync_failed();
        assert!(pages.is_owed() && pages.ranges() == [(4, 7)]);
        pages.written_again();
        assert!(!pages.is_owed() && pages.ranges() == [(4, 7)], "the next sync may fail as well");
        let mut idle = PageMarks::default();
        idle.sync_failed();
        assert!(!idle.is_owed());
    }

    #[test]
    fn only_what_certainly_arrived_is_durable() {
        for (blurred, certain, durable) in
            [(false, true, true), (true, true, false), (false, false, false)]
        {
            let mut pages = written();
            if blurred {
                pages.blur();
            }
            pages.synced(certain);
            assert_eq!(pages.is_durable(PageNo(5)), durable);
            assert!(!pages.is_durable(PageNo(7)) && pages.ranges().is_empty());
        }
    }

    #[test]
    fn a_block_is_rewritten_again_until_a_sync() {
        let mut pages = PageMarks::default();
        assert!(!pages.is_rewritten_again(Block(3)) && pages.is_rewritten_again(Block(3)));
        pages.synced(true);
        assert!(!pages.is_rewritten_again(Block(3)));
    }
}
