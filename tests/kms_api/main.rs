//! The served keystore as strangers meet it: the built program, real sockets, bad clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod clients;
mod fixture;
#[path = "../foreign_process/mod.rs"]
mod foreign_process;
mod fuzz;
mod limits;
mod memory;
mod metrics;
mod peers;
#[path = "../process_memory/mod.rs"]
mod process_memory;
mod regions;
mod shapes;
mod shutdown;
mod signatures;
mod tls;
