//! The command line as a stranger meets it: the built program, an empty home, bad input.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod access;
mod audit;
mod bad_input;
mod hostile;
mod kms;
mod leftovers;
mod live;
mod machine;
mod prompt;
#[path = "../softhsm/mod.rs"]
mod softhsm;
mod token;
