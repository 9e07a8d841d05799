//! The table of the operations.

use super::call::Operation;
use super::crypto::{data_keys, encrypt, mac, sign};
use super::{
    aliases, grants, import, key_stores, keys, policies, refused, replicas, rotation, tags,
};

/// All of them.
pub(in crate::server) const ALL: &[&[Operation]] = &[
    aliases::OPERATIONS,
    encrypt::OPERATIONS,
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
