//! Power cuts of a real disk under a vault.
//!
//! A small FUSE filesystem under a loop device is the disk (`device`): it records every write and
//! every flush, and what a workload was told, in one order. A workload (`workloads`) runs on the
//! mount of a vault and, beside it, on the backing filesystem itself (`record`). From the recording
//! come the images that a power cut leaves (`cut`): everything up to the last flush, and any of
//! what was written since. Each image is started again with the real recovery of the kernel and of
//! kmsfs, and looked at (`oracle`): whatever was acknowledged is there, wherever the backing
//! filesystem kept its own; everything opens; nothing else is broken.
//!
//! These tests need root, loop devices and the programs that `tests/install-tools.sh` installs; they
//! fail rather than skip. `KMSFS_POWERCUT_CUTS=5000 cargo test --test powercut random` is the long
//! campaign, `KMSFS_TEST_SEED` gives it other seeds. A failure names what repeats it and keeps the
//! image. `docs/RELIABILITY.md` tells what was found.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod attempt;
mod backing;
mod claim;
mod cut;
mod device;
mod directed;
mod image;
mod machine;
mod oracle;
#[path = "../programs/mod.rs"]
mod programs;
#[expect(dead_code, reason = "the seeds of these tests are fixed")]
#[path = "../mounted/random.rs"]
mod random;
mod random_cuts;
mod record;
mod scenarios;
mod tools;
mod workloads;
