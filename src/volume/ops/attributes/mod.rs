//! Modes, owners, times, extended attributes.

mod access;
pub(in crate::volume) mod exposure;
mod flags;
pub(in crate::volume) mod setattr;
pub(in crate::volume) mod xattr;
