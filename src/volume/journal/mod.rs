//! The page journal: pages as they were, for a power cut while they are written over. Imports `model` and
//! `backing`. Contents fill it; sessions begin and end it.

pub(in crate::volume) mod crashed;
pub(in crate::volume) mod files;
mod holds;
pub(in crate::volume) mod page_journal;
mod record_file;

pub use crashed::CrashedJournals;
pub(in crate::volume) use holds::JournaledPages;
pub(in crate::volume) use page_journal::OldPage;
pub use page_journal::PageJournal;
