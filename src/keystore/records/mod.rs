//! What is stored, a file for each kind of record, and what can be said of it without asking who
//! may.

pub(in crate::keystore) mod algorithm;
pub(in crate::keystore) mod grant;
pub(in crate::keystore) mod import_key;
pub(in crate::keystore) mod key;
pub(in crate::keystore) mod key_store;
pub(in crate::keystore) mod material;
pub(in crate::keystore) mod primary;
pub(in crate::keystore) mod regions;
pub(in crate::keystore) mod transfer;
