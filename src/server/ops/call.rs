//! What an operation is, and what a request gives it to work with.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;

use crate::id::KeyId;
use crate::keystore::{KeyRef, Keystore};
use crate::server::keystores::{Keystores, Region};
use crate::server::protocol::error::Fault;
use crate::server::protocol::page::{self, Page};
use crate::server::protocol::shape::Member;

/// An operation of the API: what it takes, and what answers it.
#[derive(Debug)]
pub struct Operation {
    /// AWS's name.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// What a request may hold.
    pub members: &'static [Member],
    pub(in crate::server) run: fn(&Call<'_>) -> Result<Value, Fault>,
}

/// One request: everything an operation works with.
pub(in crate::server) struct Call<'a> {
    /// The operation's name.
    pub(in crate::server) operation: &'static str,
    /// What is served, for operations across regions.
    pub(in crate::server) keystores: &'a Keystores,
    /// The region that the request is for.
    pub(in crate::server) region: &'a Region<'a>,
    /// The region's keystore, acting for the caller.
    pub(in crate::server) keystore: Keystore,
    /// The time of the request.
    pub(in crate::server) now: SystemTime,
    /// The request, of which the members have been checked.
    pub(in crate::server) request: &'a Value,
}

impl<'a> Call<'a> {
    /// The request in its own type. Its members have been checked.
    /// Errors: `SerializationException`.
    pub(in crate::server) fn read<R: Deserialize<'a>>(&self) -> Result<R, Fault> {
        R::deserialize(self.request).map_err(|error| Fault::serialization(error.to_string()))
    }

    /// One page of a list; `usual` is its length when the request names none.
    /// Errors: `InvalidMarkerException`.
    pub(in crate::server) fn page<T>(
        &self,
        usual: usize,
        items: Vec<T>,
        name: impl Fn(&T) -> String,
    ) -> Result<Page<T>, Fault> {
        page::cut(self.operation, self.request, usual, items, name)
    }

    /// The key of the request, by id, ARN or alias.
    /// Errors: `NotFoundException`.
    pub(in crate::server) fn key(&self) -> Result<KeyRef, Fault> {
        self.region.key_ref(self.request["KeyId"].as_str().unwrap_or(""))
    }

    /// The key of the request, where AWS KMS takes no alias.
    /// Errors: `NotFoundException`.
    pub(in crate::server) fn key_id(&self) -> Result<KeyId, Fault> {
        self.region.key_id(self.request["KeyId"].as_str().unwrap_or(""))
    }

    /// A key's ARN in the client's region.
    pub(in crate::server) fn arn(&self, key: KeyId) -> String {
        self.region.key_arn(key)
    }
}
