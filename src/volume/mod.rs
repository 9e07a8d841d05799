//! Rank 2: a mounted tree without a kernel.

pub mod backing;
mod sys;
