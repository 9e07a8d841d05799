//! After a crash: how long a file is, which pages come back, and what is made whole.

mod confirm;
mod examine;
mod mend;
mod size;
mod torn;

pub(super) use mend::BRIEF_BYTES;
pub use mend::{Mended, SealEffort};
