//! The verbs of a mount. None keeps state of its own.

pub(in crate::volume) mod contents;
pub(in crate::volume) mod directories;
pub(in crate::volume) mod inodes;
pub(in crate::volume) mod names;
