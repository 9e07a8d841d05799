//! What makes a file durable, and what says of it that it is.

mod freeze;
mod raise;
mod seal;
mod sync;
