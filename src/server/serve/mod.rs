//! The server at work: its threads, the requests of each connection, how it notices changes and ends.

pub(super) mod accept;
pub(super) mod heavy;
pub(super) mod http;
pub(super) mod metrics;
pub(super) mod run;
pub(super) mod watch;
