//! Real mounts, driven from outside through the `kmsfs` binary as a user would drive it.
//!
//! One test crate, so that it is linked once. Nothing here uses the library, but for `memory`, which
//! has to know keys: whatever is checked is checked through the kernel, the command line and the
//! bytes in the vault.
//!
//! The tests need `/dev/fuse` and the programs that `tests/install-tools.sh` installs; they fail
//! rather than skip when one is missing. Random tests print their seed; `KMSFS_TEST_SEED` repeats
//! a run and `KMSFS_BIN` points the whole crate at another binary.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod access;
mod accesses;
mod apps;
mod audited;
mod awake;
mod backup;
mod compare;
mod confined;
mod crash;
mod daemon;
mod data;
mod durable;
mod escape;
mod flags;
#[path = "../foreign_process/mod.rs"]
mod foreign_process;
mod fsx;
mod handles;
mod harness;
mod journal;
mod keys;
mod memory;
mod metadata;
mod model;
mod modes;
mod mountpoint;
mod pjdfstest;
mod places;
#[path = "../process_memory/mod.rs"]
mod process_memory;
#[path = "../programs/mod.rs"]
mod programs;
mod random;
mod remote;
mod replicas;
mod requests;
mod secrecy;
#[path = "../softhsm/mod.rs"]
mod softhsm;
mod stacked;
mod tamper;
mod token;
mod user;
