//! Rank 3: the socket by which a command steers a live mount.
//!
//! Each daemon listens on a Unix socket in a directory of its user's, named after the device and
//! inode of the vault. A request is one line of JSON; the answer is any number of event lines and
//! then one line with the result or the failure. Only the daemon's own user and root are heard, and
//! a command believes only its own user's daemon or, as root, that of the vault's owner. No secret
//! crosses the socket.
//!
//! What a request does is not known here: the daemon hands a function to [`Server::start`].

mod client;
mod protocol;
mod runtime_dir;
mod server;

pub use client::{Client, ClientError};
pub use protocol::{DirRef, Event, Failure, Reply, Request};
pub use runtime_dir::{RuntimeDir, VaultDir};
pub use server::{Handler, Server};
