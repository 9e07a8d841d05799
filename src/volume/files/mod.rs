//! The open files, and where their keys come from.

pub(in crate::volume) mod dir_stream;
pub(in crate::volume) mod file;
pub(in crate::volume) mod file_key;
pub(in crate::volume) mod handle;
pub(in crate::volume) mod open_files;
pub(in crate::volume) mod unopened;
