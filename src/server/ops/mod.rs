//! The operations of AWS KMS: each decodes its request, calls the keystore once, and encodes the
//! answer.

mod aliases;
pub(super) mod call;
mod crypto;
mod grants;
mod import;
mod key_stores;
mod keys;
mod members;
mod policies;
mod refused;
mod replicas;
mod rotation;
pub(super) mod table;
mod tags;

pub use call::Operation;

use call::Call;
use members::{CONTEXT, DRY_RUN, GRANT_TOKENS, KEY_ID, LIMIT, MARKER, RECIPIENT};

use super::keystores::Region;
use super::protocol::error::Fault;
use super::protocol::shape::{Member, Shape};
use super::protocol::{shapes, wire};
