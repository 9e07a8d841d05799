//! The verbs of a mount. None keeps state of its own.
//!
//! Those of one folder use those of the folders before it: `reach`, `directories`, `names`, `contents`,
//! `attributes`.

pub(in crate::volume) mod attributes;
pub(in crate::volume) mod contents;
pub(in crate::volume) mod directories;
pub(in crate::volume) mod names;
pub(in crate::volume) mod reach;
