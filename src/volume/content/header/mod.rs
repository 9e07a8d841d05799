//! The header of a file: two slots in page 0, written in turns (R3; FORMAT sections 3 and 11.2).

mod fresh;
mod open;
mod slots;
mod update;

pub(super) use slots::HeaderSlots;
