//! The operations that use a key.

pub(super) mod data_keys;
pub(super) mod encrypt;
pub(super) mod mac;
pub(super) mod sign;
