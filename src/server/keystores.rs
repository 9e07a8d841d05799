//! What is served: keystores by region, and the names that keys have in a region.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::id::KeyId;
use crate::keystore::{KeyArn, KeyRef, Keystore};
use crate::server::protocol::error::Fault;

/// The keystores behind an endpoint.
#[derive(Debug)]
pub struct Keystores {
    first: Served,
    regions: BTreeMap<String, Served>,
}

/// A keystore, and whether it still answers.
#[derive(Debug)]
pub(in crate::server) struct Served {
    pub(in crate::server) keystore: Keystore,
    /// It could not be read for so long that nothing which is known of it counts any more.
    lost: AtomicBool,
}

impl Keystores {
    /// One keystore, which answers for every region that clients name.
    pub fn new(keystore: Keystore) -> Self {
        Self { first: Served::new(keystore), regions: BTreeMap::new() }
    }

    /// A region gets a keystore of its own; multi-Region keys are replicated between those. Who may
    /// do what in the account is up to the first keystore, there too.
    pub fn add_region(&mut self, name: impl Into<String>, keystore: Keystore) {
        let keystore = keystore.in_account_of(&self.first.keystore);
        self.regions.insert(name.into(), Served::new(keystore));
    }

    /// The keystore of the regions that have none of their own.
    pub fn first(&self) -> &Keystore {
        &self.first.keystore
    }

    /// All keystores that are served, each with its region; the first one has none.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &Keystore)> {
        self.served().map(|(name, served)| (name, &served.keystore))
    }

    /// As [`Keystores::all`], with what is known of each.
    pub(in crate::server) fn served(&self) -> impl Iterator<Item = (Option<&str>, &Served)> {
        let named = self.regions.iter().map(|(name, served)| (Some(name.as_str()), served));
        std::iter::once((None, &self.first)).chain(named)
    }

    /// True if any of them has rules that are evaded by asking as another user, or without a group. One
    /// that cannot be read may have some.
    pub(in crate::server) fn have_evadable_rules(&self) -> bool {
        self.all().any(|(_, keystore)| keystore.has_evadable_rules().unwrap_or(true))
    }

    /// The region that a request is for; unsigned ones name none.
    /// Errors: `KMSInternalException` while its keystore, or the account's, is lost.
    pub(in crate::server) fn region(&self, name: Option<&str>) -> Result<Region<'_>, Fault> {
        let name = name.unwrap_or(LOCAL);
        let served = self.regions.get(name).unwrap_or(&self.first);
        // The first one has the access keys and the account's policies.
        if served.is_lost() || self.first.is_lost() {
            return Err(Fault::internal());
        }
        Ok(Region { name: name.to_owned(), keystore: &served.keystore })
    }

    /// The keystore that is a region: one that was added for it, or the first if that is its region.
    pub(in crate::server) fn keystore_of(&self, name: &str) -> Option<&Keystore> {
        let is_it = |keystore: &&Keystore| keystore.region().is_ok_and(|own| own == name);
        let added = self.regions.get(name).map(|served| &served.keystore);
        added.or_else(|| Some(self.first()).filter(is_it))
    }
}

impl Served {
    fn new(keystore: Keystore) -> Self {
        Self { keystore, lost: AtomicBool::new(false) }
    }

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// While it is lost, every request is refused; the keys that were in memory are wiped.
    pub(in crate::server) fn set_lost(&self, lost: bool) {
        let was = self.lost.swap(lost, Ordering::AcqRel);
        if lost && !was {
            self.keystore.forget_cached();
        }
    }
}

/// One region, as one request sees it. In a keystore all ARNs have the region `local`: here they
/// get the client's.
#[derive(Debug, Clone)]
pub(in crate::server) struct Region<'a> {
    pub(in crate::server) name: String,
    pub(in crate::server) keystore: &'a Keystore,
}

impl Region<'_> {
    /// The ARN of a key.
    pub(in crate::server) fn key_arn(&self, key: KeyId) -> String {
        self.outward(&KeyArn(key).to_string())
    }

    /// A text of the keystore with this region in its ARNs.
    pub(in crate::server) fn outward(&self, text: &str) -> String {
        text.replace(PREFIX, &format!("arn:aws:kms:{}:", self.name))
    }

    /// A text of a client with the keystore's region in its ARNs.
    pub(in crate::server) fn inward(&self, text: &str) -> String {
        text.replace(&format!("arn:aws:kms:{}:", self.name), PREFIX)
    }

    /// A key as a client names it.
    /// Errors: `NotFoundException`, in the words of AWS.
    pub(in crate::server) fn key_ref(&self, text: &str) -> Result<KeyRef, Fault> {
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
    pub(in crate::server) fn key_id(&self, text: &str) -> Result<KeyId, Fault> {
        match self.key_ref(text)? {
            KeyRef::Id(key) => Ok(key),
            KeyRef::Alias(_) => Err(Fault::not_found(format!("Invalid keyId '{text}'"))),
        }
    }
}

/// The region of a keystore's own ARNs, and of requests that name none.
const LOCAL: &str = "local";
const PREFIX: &str = "arn:aws:kms:local:";
