//! What is beneath: the files and directories of the vault, as the backing filesystem has them. Nothing
//! here knows a key. Imports `model`.
//!
//! Whoever writes to the vault can put anything anywhere at any moment. So entries are named in
//! `beneath` alone, which follows nothing that leads out of a directory; what is acted on is held first
//! (`handle`) and compared with what was meant (`identity`).

pub(in crate::volume) mod accesses;
pub(in crate::volume) mod beneath;
pub(in crate::volume) mod contents;
pub(in crate::volume) mod handle;
pub(in crate::volume) mod identity;
pub(in crate::volume) mod lender;
pub(in crate::volume) mod listing;
pub mod memory;
pub(in crate::volume) mod own_file;
pub(in crate::volume) mod root;
pub(in crate::volume) mod small_blocks;

pub use contents::{Backing, BackingFile, Durability};
