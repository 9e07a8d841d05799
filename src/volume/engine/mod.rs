//! [`Volume`], which owns the state of an open vault, and how a vault is made and opened. What it can do
//! is in `ops` and `jobs`.

pub(in crate::volume) mod begin;
pub(in crate::volume) mod saved_times;
pub(in crate::volume) mod setup;
pub(in crate::volume) mod volume;
pub(in crate::volume) mod volume_descriptor;

pub use volume::{KernelCache, Volume};
