//! The KMS as a volume uses it, on this machine or at an endpoint. Imports `model`.

pub(in crate::volume) mod keyring;
pub(in crate::volume) mod local;
pub mod remote;
pub(in crate::volume) mod service;
