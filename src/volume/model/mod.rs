//! Plain data and errors, of which all others speak. Imports nothing of the volume.

pub mod attr;
pub(in crate::volume) mod by_inode;
pub(in crate::volume) mod caller;
pub(in crate::volume) mod clock;
pub(in crate::volume) mod dir_policy;
pub(in crate::volume) mod error;
pub(in crate::volume) mod errseq;
pub(in crate::volume) mod exposure;
pub(in crate::volume) mod flags;
pub(in crate::volume) mod misplaced;
pub(in crate::volume) mod options;
pub(in crate::volume) mod slack;
