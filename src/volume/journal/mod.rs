//! The page journal: pages as they were, for a power cut in the midst of writing them over. Imports `model`
//! and `backing`.

pub(in crate::volume) mod files;
pub(in crate::volume) mod left;
pub(in crate::volume) mod page_journal;

pub use left::LeftPages;
pub use page_journal::PageJournal;
pub(in crate::volume) use page_journal::{KeptPages, OldPage};
