//! Rank 2: a mounted tree without a kernel.

pub mod backing;
mod error;
mod sys;

pub use error::{Result, VolumeError};
