//! `Volume`: everything that an open vault has, how it is made and opened.

pub(in crate::volume) mod setup;
pub(in crate::volume) mod volume;

pub use volume::{KernelCache, Volume};
