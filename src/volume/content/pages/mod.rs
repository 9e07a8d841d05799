//! Pages and blocks of one file, in memory: what a block holds, what a write makes of it, and in which
//! calls it goes out. Nothing here touches the disk or knows of the others.

mod batch;
mod block;
mod plain;
mod scratch;
mod written;

pub(super) use batch::{Arrival, Call, PageBatch, is_untouched};
pub(super) use block::{BlockContents, BlockFacts, judge};
pub(super) use plain::Plain;
pub(super) use scratch::with_pages;
pub(super) use written::{Synced, Written};
