//! The keystore through its public face.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod fixture;
mod openssl;

mod access_keys;
mod anchors;
mod asymmetric;
mod audit;
mod audit_cuts;
mod audit_full;
mod audit_prune;
mod bad_input;
mod conditions;
mod deletion;
mod export;
mod full_disk;
mod grants;
mod import;
mod key_stores;
mod lifecycle;
mod memory;
mod names;
mod policies;
mod processes;
mod replica_access;
mod replicas;
mod roles;
mod rotation;
mod secrecy;
mod slots;
#[path = "../softhsm/mod.rs"]
mod softhsm;
mod states;
mod steps;
mod tamper;
mod volumes;
mod wal;
