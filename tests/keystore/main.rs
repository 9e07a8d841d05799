//! The keystore through its public face.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod fixture;

mod lifecycle;
