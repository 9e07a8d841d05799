//! What users may do: policies and grants of the keystore, setuid and setgid, and who may enter the
//! vault. Imports `model`, `backing` and `keys`; knows no directory and no open file.

pub(in crate::volume) mod authorizer;
pub(in crate::volume) mod decisions;
pub(in crate::volume) mod exposure;
pub(in crate::volume) mod privileges;
pub(in crate::volume) mod user;
