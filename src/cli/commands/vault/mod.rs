//! Vaults and mounts.

pub(in crate::cli) mod adopt;
pub(in crate::cli) mod cat;
pub(in crate::cli) mod create;
pub(in crate::cli) mod fsck;
pub(in crate::cli) mod init;
pub(in crate::cli) mod mount;
pub(in crate::cli) mod policy;
pub(in crate::cli) mod preflight;
pub(in crate::cli) mod rewrap;
pub(in crate::cli) mod status;
pub(in crate::cli) mod umount;
