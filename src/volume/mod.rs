//! Rank 2: a mounted tree without a kernel.

pub mod backing;
mod clock;
pub mod content;
mod error;
mod sys;

pub use error::{Result, VolumeError};
