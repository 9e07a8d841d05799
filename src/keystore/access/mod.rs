//! May a caller do this? The first step of every operation.

pub(in crate::keystore) mod decision;
pub(in crate::keystore) mod request;
pub(in crate::keystore) mod rules;
pub(in crate::keystore) mod table;

pub(in crate::keystore) use decision::{authorise, authorise_alias};
