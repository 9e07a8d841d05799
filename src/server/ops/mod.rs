//! The operations of AWS KMS: each decodes its request, calls the keystore once, and encodes the
//! answer.

use super::dispatch::{Call, Operation};
use super::error::Fault;
use super::service::Region;
use super::shape::{Member, Shape};
use super::{shapes, wire};

mod aliases;
mod crypto;
mod data_keys;
mod grants;
mod import;
mod key_stores;
mod keys;
mod mac;
mod policies;
mod refused;
mod replicas;
mod rotation;
mod sign;
mod tags;

/// All of them.
pub(super) const ALL: &[&[Operation]] = &[
    aliases::OPERATIONS,
    crypto::OPERATIONS,
    data_keys::OPERATIONS,
    grants::OPERATIONS,
    import::OPERATIONS,
    key_stores::OPERATIONS,
    keys::OPERATIONS,
    mac::OPERATIONS,
    policies::OPERATIONS,
    refused::OPERATIONS,
    replicas::OPERATIONS,
    rotation::OPERATIONS,
    sign::OPERATIONS,
    tags::OPERATIONS,
];

// The members that many operations have.
const KEY_ID: Member = Member::needed("KeyId", &shapes::KEY_ID);
const CONTEXT: Member = Member::optional("EncryptionContext", &shapes::CONTEXT);
const DRY_RUN: Member = Member::optional("DryRun", &shapes::FLAG);
const GRANT_TOKENS: Member = Member::optional("GrantTokens", &shapes::GRANT_TOKENS);
const LIMIT: Member = Member::optional("Limit", &shapes::LIMIT);
const MARKER: Member = Member::optional("Marker", &shapes::MARKER);
const RECIPIENT: Member = Member::optional("Recipient", &shapes::RECIPIENT);
