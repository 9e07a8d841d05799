//! Rank 3: the keystore as an endpoint that speaks the API of AWS KMS.
//!
//! **The path of a request**: `serve::accept` (a connection), `transport::slots` (its slot and its
//! time) → `serve::http` (head, body, limits) → `identity` (who sends it: a signature, or the peer of a
//! socket) → `serve::heavy` (what takes seconds waits for its turn) → `dispatch` (the operation and its
//! members) → `ops` (one call of the keystore) → `protocol` (the answer).
//!
//! Imports of the crate: [`crate::keystore`], [`crate::endpoint`], [`crate::crypto`], [`crate::id`] and
//! `crate::sys`. Invariants:
//!
//! - What others can reach speaks TLS, and takes signed requests only; a server that was told
//!   otherwise does not start.
//! - Whatever a client sends, or does not send, costs a bounded amount of memory and time.
//! - Nothing of a request is looked into before it is known who sends it, except the operation's
//!   name.
//! - An operation that has begun is carried out, also when its client has gone or the server stops.

mod config;
pub mod dispatch;
mod identity;
pub mod keystores;
mod ops;
mod protocol;
mod serve;
mod transport;

pub use config::{Config, Limits, ServerError, SocketAccess, TlsFiles, Unsigned};
pub use ops::Operation;
pub use protocol::shape;
pub use serve::run::Server;
pub use transport::listen::Listen;
