//! Work that commands and daemons share.

pub(in crate::cli) mod follow;
pub(in crate::cli) mod maintenance;
pub(in crate::cli) mod rewrap;
pub(in crate::cli) mod survey;
