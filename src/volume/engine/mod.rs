//! `Volume`: everything that an open vault has, how it is made and opened.

pub(in crate::volume) mod begin;
pub(in crate::volume) mod saved_times;
pub(in crate::volume) mod setup;
pub(in crate::volume) mod volume;
pub(in crate::volume) mod volume_descriptor;

pub use volume::{KernelCache, Volume};
