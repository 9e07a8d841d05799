//! The page journal: pages as they were, for a power cut while they are written over. Imports `model` and
//! `backing`. Contents fill it; sessions begin and end it.

pub(in crate::volume) mod files;
pub(in crate::volume) mod left;
pub(in crate::volume) mod page_journal;

pub use left::LeftPages;
pub use page_journal::PageJournal;
pub(in crate::volume) use page_journal::{KeptPages, OldPage};
