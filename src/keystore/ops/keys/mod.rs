//! Operations on keys: making, describing, rotating, importing, destroying.

pub(in crate::keystore) mod deletion;
pub(in crate::keystore) mod expiry;
pub(in crate::keystore) mod import;
pub(in crate::keystore) mod manage;
pub(in crate::keystore) mod on_token;
pub(in crate::keystore) mod rotation;
