//! The verbs of a mount. None keeps state of its own.
//!
//! The folders have an order too, and use those before them only: `reach`, `directories`, `names`,
//! `contents`, `attributes`.

pub(in crate::volume) mod attributes;
pub(in crate::volume) mod contents;
pub(in crate::volume) mod directories;
pub(in crate::volume) mod names;
pub(in crate::volume) mod reach;
