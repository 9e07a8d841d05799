//! Connections: addresses to listen at, TLS, who is at the other end, and how many may be there.

pub(super) mod listen;
pub(super) mod peer;
pub(super) mod slots;
pub(super) mod socket_file;
pub(super) mod stall;
pub(super) mod tls;
