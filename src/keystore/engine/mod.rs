//! The open keystore, and the frame that every operation runs in.

pub(in crate::keystore) mod cache;
pub(in crate::keystore) mod frame;
pub(in crate::keystore) mod metrics;
