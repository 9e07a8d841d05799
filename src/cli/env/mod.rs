//! What the commands find around them: paths, mounts, processes, secrets, keys, the daemons of mounts.

pub(in crate::cli) mod failure;
pub(in crate::cli) mod interrupt;
pub(in crate::cli) mod keys_from;
pub(in crate::cli) mod keystore;
pub(in crate::cli) mod mounts;
pub(in crate::cli) mod paths;
pub(in crate::cli) mod process;
pub(in crate::cli) mod processors;
pub(in crate::cli) mod prompt;
mod silent;
pub(in crate::cli) mod trust;
pub(in crate::cli) mod unlock;
pub(in crate::cli) mod vault;
