//! Whether a session journals pages before it writes over them, and what earlier ones left.

use std::os::fd::OwnedFd;

use crate::envelope::SessionWord;
use crate::volume::backing::beneath::BackingName;
use crate::volume::backing::contents::Durability;
use crate::volume::content::{Look, Shared};
use crate::volume::engine::Volume;
use crate::volume::engine::setup::Options;
use crate::volume::journal::files;
use crate::volume::model::error::Result;

/// When pages go to a journal before they are written over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PageJournaling {
    /// Where the blocks of the backing filesystem are smaller than a page.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never, but for a session in which a journal is left of a crash: what is in it must not become
    /// older than what is durable.
    Off,
}

/// Takes up the journals of crashed sessions, and begins one for this session if it is to have one.
/// Returns the files that nobody needs; in a vault that may change they are gone.
///
/// `is_small`: the blocks of the backing filesystem are smaller than a page. `is_lost`: the record of
/// sessions is, so nobody knows which of them crashed.
pub(in crate::volume) fn begin(
    meta: &OwnedFd,
    shared: Shared,
    options: &Options,
    (is_small, is_lost): (bool, bool),
) -> Result<(Shared, Vec<BackingName>)> {
    let is_needed = |word| is_lost || shared.is_unrecovered(word);
    let files::Found { left, strays } = files::find(meta, is_needed)?;
    let wanted = match options.page_journal {
        PageJournaling::Auto => is_small,
        PageJournaling::On => true,
        PageJournaling::Off => false,
    };
    let begins = !options.read_only && (wanted || !left.is_empty());
    shared.set_left(left);
    if options.read_only {
        return Ok((shared, strays));
    }
    files::remove_all(meta, strays.iter().cloned());
    if !begins {
        return Ok((shared, strays));
    }
    match files::begin(meta, shared.session()) {
        Ok(journal) => Ok((shared.journaling(journal), strays)),
        Err(error) => {
            // On a disk that is full a mount is what makes room.
            log::error!("pages are not journaled in this session: {error}");
            Ok((shared, strays))
        }
    }
}

impl Volume {
    /// True if pages go to a journal before they are written over.
    pub fn journals_pages(&self) -> bool {
        self.files.shared().journal().is_some()
    }

    /// Recovery has put back what the journals of these crashes have, durably.
    pub(in crate::volume) fn drop_recovered_journals(&self) -> Result<()> {
        let shared = self.files.shared();
        let Some(left) = shared.left() else { return Ok(()) };
        let meta = self.tree.meta();
        let is_done = |word: &SessionWord| !shared.is_unrecovered(*word);
        for word in left.sessions().iter().filter(|word| is_done(word)) {
            files::remove(meta, *word);
        }
        shared.set_left(files::find(meta, |word| shared.is_unrecovered(word))?.left);
        Ok(())
    }

    /// True if a journal is left of a session that nobody knows to have crashed.
    pub(in crate::volume) fn has_unknown_journals(&self) -> bool {
        let shared = self.files.shared();
        let is_unknown = |word: &SessionWord| !shared.is_unrecovered(*word);
        shared.left().is_some_and(|left| left.sessions().iter().any(is_unknown))
    }

    /// Syncs the files that need records, if the journal has become too long: then it begins anew.
    pub(in crate::volume) fn drain_journal(&self) {
        if !self.files.shared().journal().is_some_and(crate::volume::journal::PageJournal::is_full)
        {
            return;
        }
        for file in self.files.all().iter().filter(|file| file.content().needs_journal()) {
            if let Err(error) = file.sync(Durability::Contents) {
                log::error!("inode {}: background sync: {error}", file.ino());
            }
        }
        // What is closed, and what was removed.
        if let Err(error) = self.sync_all(Look::Briefly) {
            log::error!("the page journal stays long: {error}");
        }
    }
}
