//! The KMS as a volume uses it, on this machine or at an endpoint. Imports `model`.
//!
//! `keyring` alone asks a service for keys, and binds every wrap to the volume and to a file or directory.

pub(in crate::volume) mod keyring;
pub(in crate::volume) mod local;
pub mod remote;
pub(in crate::volume) mod service;
