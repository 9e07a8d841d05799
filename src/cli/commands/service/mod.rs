//! The KMS endpoint, and requests to one.

pub(in crate::cli) mod kms;
pub(in crate::cli) mod serve;
