//! Who may do what: policies and grants of the keystore, privileges of files, and who may enter the vault.

pub(in crate::volume) mod authorizer;
pub(in crate::volume) mod decisions;
pub(in crate::volume) mod exposure;
pub(in crate::volume) mod privileges;
pub(in crate::volume) mod user;
