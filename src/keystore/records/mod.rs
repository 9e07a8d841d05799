//! What is stored, a file for each kind of record, and what can be said of it without asking who
//! may.

pub(in crate::keystore) mod access_key;
pub(in crate::keystore) mod algorithm;
pub(in crate::keystore) mod alias;
pub(in crate::keystore) mod grant;
pub(in crate::keystore) mod import_key;
pub(in crate::keystore) mod key;
pub(in crate::keystore) mod key_store;
pub(in crate::keystore) mod material;
pub(in crate::keystore) mod principal;
pub(in crate::keystore) mod regions;
pub(in crate::keystore) mod rotation;
pub(in crate::keystore) mod transfer;
pub(in crate::keystore) mod volume;
