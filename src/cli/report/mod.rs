//! What a command tells: exit codes, messages, tables, progress, the log.

pub(in crate::cli) mod exit;
pub(in crate::cli) mod logging;
pub(in crate::cli) mod output;
pub(in crate::cli) mod printable;
pub(in crate::cli) mod progress;
