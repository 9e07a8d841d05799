//! Spill pages: read, cached, and written in pairs (R2; FORMAT sections 6 and 11.3).

mod cache;
mod groups;
mod roles;

pub(super) use cache::{SpillCache, Spills};
pub(super) use roles::Roles;
