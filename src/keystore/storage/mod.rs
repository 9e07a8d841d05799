//! The keystore as a file: SQLite, and rows that are sealed and bound to where they are.

pub(in crate::keystore) mod companions;
pub(in crate::keystore) mod database;
pub(in crate::keystore) mod directory;
pub(in crate::keystore) mod file;
pub(in crate::keystore) mod lease;
pub(in crate::keystore) mod root;
pub(in crate::keystore) mod rows;
pub(in crate::keystore) mod schema;
pub(in crate::keystore) mod sealed;
pub(in crate::keystore) mod wrapping;
