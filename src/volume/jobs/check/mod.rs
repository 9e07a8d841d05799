//! `kmsfs fsck`: everything in a volume is read and authenticated.

pub(in crate::volume) mod copies;
pub(in crate::volume) mod report;
pub(in crate::volume) mod run;
