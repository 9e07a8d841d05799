//! The state of the namespace: inodes, directories, names, locks. The verbs that change it are in `ops`.

pub(in crate::volume) mod descriptor;
pub(in crate::volume) mod dir;
pub(in crate::volume) mod dir_cache;
pub(in crate::volume) mod dir_locks;
pub(in crate::volume) mod dir_rules;
pub(in crate::volume) mod grants;
pub(in crate::volume) mod inode;
pub(in crate::volume) mod names;
pub(in crate::volume) mod occupants;
pub(in crate::volume) mod renames;
pub(in crate::volume) mod tree;
pub(in crate::volume) mod twins;
pub(in crate::volume) mod unsynced;
