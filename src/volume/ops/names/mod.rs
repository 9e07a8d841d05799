//! Names that come and go, and their listing.

pub(in crate::volume) mod create;
pub(in crate::volume) mod links;
mod numbers;
pub(in crate::volume) mod readdir;
pub(in crate::volume) mod remove;
pub(in crate::volume) mod rename;
