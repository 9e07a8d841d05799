//! What directories say of keys and places, and how that reaches the disk.

pub(in crate::volume) mod cross;
pub(in crate::volume) mod dir_policy;
pub(in crate::volume) mod moves;
pub(in crate::volume) mod sync;
