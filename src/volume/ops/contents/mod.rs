//! What is done with the contents of files.

pub(in crate::volume) mod access_time;
pub(in crate::volume) mod io;
pub(in crate::volume) mod journaling;
pub(in crate::volume) mod open;
pub(in crate::volume) mod privileges;
