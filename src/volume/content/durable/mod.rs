//! What makes a file durable, and what says of it that it is.

mod raise;
mod seal;
mod sync;
