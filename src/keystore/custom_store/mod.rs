//! Custom key stores in use: the connections to the tokens that make and keep their keys.
//!
//! The connection is a fact of the keystore, not of a process: each process logs in to the token
//! when it first needs it. No token is asked under a lock of the keystore.

pub(in crate::keystore) mod link;
pub(in crate::keystore) mod presence;
pub(in crate::keystore) mod token_key;
