//! Rank 1: the AWS JSON 1.1 protocol, as KMS clients and servers speak it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`sigv4`] | signing a request, and checking the signature of one |
//! | [`authorization`] | what an `Authorization` header claims |
//! | [`replay`] | which signatures were seen already |
//! | [`credentials`] | access keys of a client, from an AWS credentials file |
//! | [`address`] | where an endpoint is: loopback, TLS or a Unix socket |
//! | `peer`, `way` | who answers on this machine; who could have led a client to a Unix socket |
//! | [`client`] | calls to an endpoint, with keep-alive, timeouts and retries |
//!
//! Imports of the crate: [`crate::crypto`] only; knows no keystore, so the same client talks to
//! `kmsfs serve` and to AWS. Invariants:
//!
//! - Whatever a peer sends is refused, never a panic: headers are parsed totally.
//! - A signature is compared in constant time, and covers the host, the time, the operation and
//!   the whole body, or is refused.
//! - Secrets come from files, never from arguments or the values of environment variables; they
//!   are wiped when dropped.
//! - Plain HTTP goes to loopback addresses only, and to root or the own user there; what goes to a
//!   Unix socket, to nobody who could have put one of their own in its place.

pub mod address;
pub mod authorization;
pub mod client;
mod connection;
pub mod credentials;
mod error;
mod peer;
pub mod replay;
pub mod sigv4;
mod time;
mod way;

pub use address::Address;
pub use authorization::Claim;
pub use client::{Endpoint, Options};
pub use credentials::Credentials;
pub use error::{EndpointError, SignatureError};
pub use replay::ReplayWindow;
pub use sigv4::Signable;

/// The content type of requests and answers.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The header that names the operation.
pub const TARGET_HEADER: &str = "x-amz-target";

/// What stands before the operation's name in that header.
pub const TARGET_PREFIX: &str = "TrentService.";

/// The header with the id of a request, in every answer.
pub const REQUEST_ID_HEADER: &str = "x-amzn-requestid";
