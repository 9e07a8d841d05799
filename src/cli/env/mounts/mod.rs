//! The mounts of a machine: the table of them, their daemons, who uses them, taking them away.

pub(in crate::cli) mod busy;
pub(in crate::cli) mod daemon_client;
pub(in crate::cli) mod detach;
pub(in crate::cli) mod farewell;
pub(in crate::cli) mod inside;
pub(in crate::cli) mod life;
pub(in crate::cli) mod mountinfo;
pub(in crate::cli) mod mountpoint;
pub(in crate::cli) mod second;
