//! The open keystore, and the frame that every operation runs in.

pub(in crate::keystore) mod audit_notes;
pub(in crate::keystore) mod cache;
pub(in crate::keystore) mod changes;
pub(in crate::keystore) mod frame;
pub(in crate::keystore) mod keystore;
pub(in crate::keystore) mod live;
pub(in crate::keystore) mod metrics;
pub(in crate::keystore) mod open;
pub(in crate::keystore) mod refused_pins;

pub use keystore::Keystore;
