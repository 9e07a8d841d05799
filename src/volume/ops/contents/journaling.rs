//! The page journals while the volume is open: this session's, and those that earlier ones left.

use crate::envelope::SessionWord;
use crate::volume::backing::small_blocks::{SmallBlocks, small_blocks_of};
use crate::volume::engine::Volume;
use crate::volume::journal::files;
use crate::volume::model::error::Result;

impl Volume {
    /// Whether the backing filesystem has blocks smaller than a page.
    pub fn small_blocks(&self) -> Option<SmallBlocks> {
        small_blocks_of(&self.root).unwrap_or_default()
    }

    /// What a person should know of that.
    pub fn told_of_small_blocks(&self) -> Option<String> {
        let small = self.small_blocks()?;
        Some(if self.journals_pages() { small.with_journal() } else { small.without_journal() })
    }

    /// True if pages go to a journal before they are written over.
    pub fn journals_pages(&self) -> bool {
        self.files.shared().journal().is_some()
    }

    /// Recovery has put back what the journals of these crashes have, durably.
    pub(in crate::volume) fn drop_recovered_journals(&self) -> Result<()> {
        let shared = self.files.shared();
        let Some(journals) = shared.crashed_journals() else { return Ok(()) };
        let meta = self.tree.meta();
        let is_done = |word: &SessionWord| !shared.is_unrecovered(*word);
        for word in journals.sessions().iter().filter(|word| is_done(word)) {
            files::remove(meta, *word);
        }
        shared
            .set_crashed_journals(files::find(meta, |word| shared.is_unrecovered(word))?.journals);
        Ok(())
    }

    /// True if a journal is left of a session that nobody knows to have crashed.
    pub(in crate::volume) fn has_unknown_journals(&self) -> bool {
        let shared = self.files.shared();
        let is_unknown = |word: &SessionWord| !shared.is_unrecovered(*word);
        shared.crashed_journals().is_some_and(|journals| journals.sessions().iter().any(is_unknown))
    }
}
