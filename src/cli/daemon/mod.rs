//! The daemon of a mount: how it starts, what it may, how it is steered, how it ends.

pub(in crate::cli) mod awake;
pub(in crate::cli) mod background;
pub(in crate::cli) mod calls;
pub(in crate::cli) mod confine;
pub(in crate::cli) mod control;
pub(in crate::cli) mod keeper;
pub(in crate::cli) mod plan;
pub(in crate::cli) mod reach;
pub(in crate::cli) mod run;
