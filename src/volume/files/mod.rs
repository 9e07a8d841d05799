//! What is open: files, handles, directory streams, and where the key of a file comes from; and what a
//! file says of itself before it is open. Imports the rooms below it; a file does not know the volume.

pub(in crate::volume) mod dir_stream;
pub(in crate::volume) mod file;
pub(in crate::volume) mod file_key;
pub(in crate::volume) mod open_files;
mod table;
pub(in crate::volume) mod unopened;
