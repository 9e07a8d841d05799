//! From names and numbers to what a system call can act on, and what the kernel is told of it.

pub(in crate::volume) mod file;
pub(in crate::volume) mod inode;
pub(in crate::volume) mod known_size;
pub(in crate::volume) mod leftovers;
pub(in crate::volume) mod link_target;
pub(in crate::volume) mod lookup;
pub(in crate::volume) mod places;
pub(in crate::volume) mod sidecars;
pub(in crate::volume) mod twins;
pub(in crate::volume) mod unfinished_rename;
