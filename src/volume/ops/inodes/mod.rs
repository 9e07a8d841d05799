//! From names and numbers to inodes, and what is said of these.

pub(in crate::volume) mod exposure;
pub(in crate::volume) mod lookup;
pub(in crate::volume) mod reach;
pub(in crate::volume) mod setattr;
pub(in crate::volume) mod told_size;
pub(in crate::volume) mod xattr;
