//! Makes room in the page journal by syncing what needs its records.

use std::sync::Arc;

use crate::volume::backing::contents::Durability;
use crate::volume::content::SealEffort;
use crate::volume::engine::Volume;
use crate::volume::journal::PageJournal;

impl Volume {
    /// Syncs the files that need records, if the journal has no room left: then it begins anew.
    fn drain_journal(&self, journal: &PageJournal) {
        journal.give_back();
        if !journal.is_pressed() {
            return;
        }
        for file in self.files.all().iter().filter(|file| file.content().needs_journal()) {
            if let Err(error) = file.sync(Durability::Contents) {
                log::error!("inode {}: background sync: {error}", file.ino());
            }
        }
        if !journal.is_pressed() {
            return;
        }
        // Also files that are closed, and files that were removed.
        if let Err(error) = self.sync_all(SealEffort::Brief) {
            log::error!("the page journal stays long: {error}");
        }
    }
}

/// Looks after the page journal of a volume for as long as it lives.
pub(in crate::volume) struct Attended(Arc<Volume>);

impl Attended {
    /// `None` if the session has no page journal.
    pub(in crate::volume) fn of(volume: &Arc<Volume>) -> Option<Self> {
        volume.files.shared().journal()?.attend(true);
        Some(Self(volume.clone()))
    }

    /// Makes room in the journal, if it needs some.
    pub(in crate::volume) fn drain(&self) {
        if let Some(journal) = self.0.files.shared().journal() {
            self.0.drain_journal(journal);
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if let Some(journal) = self.0.files.shared().journal() {
            journal.attend(false);
        }
    }
}
