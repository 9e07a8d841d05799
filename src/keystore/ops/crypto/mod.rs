//! Operations with key material.

pub(in crate::keystore) mod asymmetric;
pub(in crate::keystore) mod data_key;
pub(in crate::keystore) mod data_key_pair;
pub(in crate::keystore) mod encrypt;
pub(in crate::keystore) mod mac;
pub(in crate::keystore) mod random;
pub(in crate::keystore) mod re_encrypt;
pub(in crate::keystore) mod wrap;
