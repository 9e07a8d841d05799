//! The state of the tree: inodes, directories with their descriptors, names, locks, and what is
//! remembered of places. Imports `model`, `backing` and `keys`.
//!
//! `Tree` holds it all together. What changes it is in `ops`, and takes its locks in the order that
//! `dir_locks` and `tree` give.

pub(in crate::volume) mod descriptor;
pub(in crate::volume) mod dir;
pub(in crate::volume) mod dir_cache;
pub(in crate::volume) mod dir_locks;
pub(in crate::volume) mod dir_rules;
pub(in crate::volume) mod inode;
pub(in crate::volume) mod listings;
pub(in crate::volume) mod names;
pub(in crate::volume) mod occupants;
pub(in crate::volume) mod renames;
pub(in crate::volume) mod set_id;
pub(in crate::volume) mod tree;
pub(in crate::volume) mod twins;
pub(in crate::volume) mod unsynced;
