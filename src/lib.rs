//! kmsfs: an encrypted filesystem with an embedded KMS.
//!
//! Modules stand in rank order: each may use only those above it, and siblings do not see each
//! other (`tests/layering.rs` holds them to it).
//!
//! | rank | module | what it knows |
//! |---|---|---|
//! | 0 | [`id`], [`crypto`] | 16-byte identities; primitives: no files, no clock, no state |
//! | 0 | `sys` | system calls that no safe crate offers |
//! | 0 | `process` | who another process is |
//! | 0 | `threads` | threads that work until they are told to stop |
//! | 1 | [`keystore`] | the embedded KMS: keys, material, aliases, unlock slots |
//! | 1 | [`endpoint`] | the AWS JSON 1.1 protocol: signatures, and a client |
//! | 1 | [`envelope`] | the on-disk format as bytes in, bytes out; no KMS and no files |
//! | 2 | [`volume`] | a mounted tree without a kernel |
//! | 3 | [`fuse`], [`control`] | the kernel's view of a volume; the socket that steers a live mount |
//! | 3 | [`server`] | the keystore as an endpoint that speaks the API of AWS KMS |
//! | 4 | [`cli`] | commands, messages, exit codes |
//!
//! **The path of a byte**: `fuse::adapter` write → `volume::content` (split, merge, crash order) →
//! `envelope::layout` + `envelope::unit` → `crypto::bulk`, then `volume::backing`.
//!
//! **The path of a key**: `volume::content` → `volume::keys` → `keystore` GenerateDataKey or
//! Decrypt → key material → root key. Back come a file key, which stays in memory until the last
//! close, and its wrapped form, which goes into the file's header.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod id;

pub mod crypto;

mod sys;

mod process;

mod threads;

pub mod keystore;

pub mod endpoint;

pub mod envelope;

pub mod volume;

pub mod fuse;

pub mod control;

pub mod server;

pub mod cli;
