//! The verbs, a file for each family, named as AWS names them.

pub(in crate::keystore) mod access_keys;
pub(in crate::keystore) mod aliases;
pub(in crate::keystore) mod audit;
pub(in crate::keystore) mod crypto;
pub(in crate::keystore) mod custom_key_stores;
pub(in crate::keystore) mod export;
pub(in crate::keystore) mod grants;
pub(in crate::keystore) mod key_policies;
pub(in crate::keystore) mod keys;
pub(in crate::keystore) mod metrics;
pub(in crate::keystore) mod principals;
pub(in crate::keystore) mod replicas;
pub(in crate::keystore) mod slots;
pub(in crate::keystore) mod verify;
pub(in crate::keystore) mod volumes;
