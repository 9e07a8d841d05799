//! What is served: keystores by region, and the names that keys have in a region.

use std::collections::BTreeMap;

use super::error::Fault;
use crate::id::KeyId;
use crate::keystore::{KeyArn, KeyRef, Keystore};

/// The keystores behind an endpoint.
#[derive(Debug)]
pub struct Service {
    first: Keystore,
    regions: BTreeMap<String, Keystore>,
}

impl Service {
    /// One keystore, which answers for every region that clients name.
    pub fn new(keystore: Keystore) -> Self {
        Self { first: keystore, regions: BTreeMap::new() }
    }

    /// A region gets a keystore of its own; multi-Region keys are replicated between those.
    pub fn add_region(&mut self, name: impl Into<String>, keystore: Keystore) {
        self.regions.insert(name.into(), keystore);
    }

    /// The keystore of the regions that have none of their own.
    pub fn keystore(&self) -> &Keystore {
        &self.first
    }

    /// All keystores that are served, each with its region; the first one has none.
    pub fn keystores(&self) -> impl Iterator<Item = (Option<&str>, &Keystore)> {
        let named = self.regions.iter().map(|(name, keystore)| (Some(name.as_str()), keystore));
        std::iter::once((None, &self.first)).chain(named)
    }

    /// The region that a request is for; unsigned ones name none.
    pub(super) fn region(&self, name: Option<&str>) -> Region<'_> {
        let name = name.unwrap_or(LOCAL);
        let keystore = self.regions.get(name).unwrap_or(&self.first);
        Region { name: name.to_owned(), keystore }
    }

    /// The keystore that is a region: one that was added for it, or the first if that is its region.
    pub(super) fn keystore_of(&self, name: &str) -> Option<&Keystore> {
        let is_it = |keystore: &&Keystore| keystore.region().is_ok_and(|own| own == name);
        self.regions.get(name).or_else(|| Some(&self.first).filter(is_it))
    }
}

/// One region, as one request sees it. In a keystore all ARNs have the region `local`: here they
/// get the client's.
#[derive(Debug, Clone)]
pub(super) struct Region<'a> {
    pub(super) name: String,
    pub(super) keystore: &'a Keystore,
}

impl Region<'_> {
    /// The ARN of a key.
    pub(super) fn key_arn(&self, key: KeyId) -> String {
        self.outward(&KeyArn(key).to_string())
    }

    /// A text of the keystore with this region in its ARNs.
    pub(super) fn outward(&self, text: &str) -> String {
        text.replace(PREFIX, &format!("arn:aws:kms:{}:", self.name))
    }

    /// A text of a client with the keystore's region in its ARNs.
    pub(super) fn inward(&self, text: &str) -> String {
        text.replace(&format!("arn:aws:kms:{}:", self.name), PREFIX)
    }

    /// A key as a client names it.
    /// Errors: `NotFoundException`, in the words of AWS.
    pub(super) fn key_ref(&self, text: &str) -> Result<KeyRef, Fault> {
        if let Some(arn) = text.strip_prefix("arn:") {
            let region = arn.split(':').nth(2).unwrap_or("");
            if region != self.name {
                return Err(Fault::not_found(format!("Invalid arn {region}")));
            }
        }
        Ok(self.inward(text).parse::<KeyRef>()?)
    }

    /// A key as a client names it where AWS KMS takes no alias.
    /// Errors: `NotFoundException`, in the words of AWS.
    pub(super) fn key_id(&self, text: &str) -> Result<KeyId, Fault> {
        match self.key_ref(text)? {
            KeyRef::Id(key) => Ok(key),
            KeyRef::Alias(_) => Err(Fault::not_found(format!("Invalid keyId '{text}'"))),
        }
    }
}

/// The region of a keystore's own ARNs, and of requests that name none.
const LOCAL: &str = "local";
const PREFIX: &str = "arn:aws:kms:local:";
