//! Reading the log: shown, exported, checked, and cut.

pub(super) mod export;
pub(super) mod filter;
pub(super) mod prune;
mod verify;
mod walk;
pub(super) mod walker;
