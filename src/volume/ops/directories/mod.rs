//! What is done with directories as such: their keys, their places, their syncs.

pub(in crate::volume) mod moves;
pub(in crate::volume) mod places;
pub(in crate::volume) mod policy;
pub(in crate::volume) mod sync;
pub(in crate::volume) mod twins;
