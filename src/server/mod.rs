//! Rank 3: the keystore as an endpoint that speaks the API of AWS KMS.

pub mod dispatch;
mod error;
mod ops;
mod page;
pub mod service;
pub mod shape;
mod shapes;
mod wire;
