//! What all others speak of: ids, specs, actions, callers, contexts, times. Imports nothing of the
//! keystore.

pub(in crate::keystore) mod action;
pub(in crate::keystore) mod audit;
pub(in crate::keystore) mod blob;
pub(in crate::keystore) mod caller;
pub mod context;
pub(in crate::keystore) mod id;
pub(in crate::keystore) mod key_store;
pub(in crate::keystore) mod operation;
pub(in crate::keystore) mod plaintext;
pub(in crate::keystore) mod region;
pub(in crate::keystore) mod slot;
pub(in crate::keystore) mod spec;
pub(in crate::keystore) mod state;
pub(in crate::keystore) mod time;
