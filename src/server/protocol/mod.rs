//! The forms of requests and answers: shapes of members, values on the wire, pages, refusals. It knows
//! no keystore but its errors.

pub(super) mod error;
pub(super) mod page;
pub mod shape;
pub(super) mod shapes;
pub(super) mod wire;
