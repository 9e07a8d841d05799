//! The commands, in rooms of what they are about.

pub(in crate::cli) mod access;
pub(in crate::cli) mod doctor;
pub(in crate::cli) mod key;
pub(in crate::cli) mod keystore;
pub(in crate::cli) mod service;
pub(in crate::cli) mod vault;
