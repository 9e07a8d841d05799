//! A KMS at an endpoint as a volume's KMS: `kmsfs serve` on another host, or AWS.
//!
//! Ciphertexts of our own form are stored in their parts, so that the vault also opens with the
//! keystore itself; those of any other KMS are stored as they are (FORMAT section 3.2). The state
//! of every key in use is asked for every two seconds (`watch`).

mod answers;
mod connection;
mod key_table;
mod remote_keys;
mod watch;

pub use remote_keys::RemoteKeys;
