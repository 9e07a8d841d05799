//! Vaults that live in a scratch directory, mounts that clean up after themselves, and the
//! programs that tests drive.

mod headers;
mod mount;
mod sandbox;
mod tools;

pub(crate) use headers::{check_headers, contains, files_below};
pub(crate) use mount::{Mount, Vault, binary};
pub(crate) use sandbox::{Sandbox, is_root};
pub(crate) use tools::{Shell, assert_same, program, python, snapshot, tool};
