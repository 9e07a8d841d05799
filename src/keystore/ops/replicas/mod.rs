//! Multi-Region keys: the same key in several keystores, each of which is a Region.
//!
//! A key travels in a *transfer*: the destination publishes a [`TransferKey`], the source seals the
//! key for it, the destination opens that once (`seal`). Each keystore signs what it publishes and
//! what it seals, with a key that its root key determines: its *identity*. Who carries the two
//! files compares identities; between keystores that one process has open nothing is carried (`direct`).
//!
//! One of the related keys is the primary (`role`), and only it rotates; replicas get its new
//! material by another transfer. Related keys agree about id, kind and material. Everything else, such as
//! states, aliases, policies and grants, is each keystore's own.

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::keystore::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::caller;
use crate::keystore::records::key::KeyRecord;

pub(in crate::keystore) mod direct;
pub(in crate::keystore) mod payload;
pub(in crate::keystore) mod receive;
pub(in crate::keystore) mod send;
pub(in crate::keystore) mod settle;

use crate::keystore::records::regions::{HandOver, Holder};

/// The Region of a keystore for which no other was named.
pub const DEFAULT_REGION: &str = "local";

/// What a keystore knows about the related keys of one of its multi-Region keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct Regions {
    /// The Region of this keystore.
    pub(in crate::keystore) own: String,
    /// Where the primary key is.
    pub(in crate::keystore) primary: Holder,
    /// Where the replicas are.
    pub(in crate::keystore) replicas: Vec<String>,
    /// How the primary key came there. Their number is the term.
    pub(in crate::keystore) hand_overs: Vec<HandOver>,
    /// The waiting period that starts when the last replica is gone. Units: days.
    pub(in crate::keystore) waiting_days: Option<u16>,
}

impl Regions {
    /// Of a new primary key, in the keystore with this identity.
    pub(in crate::keystore) fn primary_in(region: String, identity: String) -> Self {
        Self {
            own: region.clone(),
            primary: Holder { region, identity },
            replicas: Vec::new(),
            hand_overs: Vec::new(),
            waiting_days: None,
        }
    }

    pub(in crate::keystore) fn is_primary(&self) -> bool {
        self.own == self.primary.region
    }

    /// What the key is, in AWS's words.
    pub(in crate::keystore) fn key_type(&self) -> &'static str {
        if self.is_primary() { "PRIMARY" } else { "REPLICA" }
    }

    /// Notes a replica, once.
    pub(in crate::keystore) fn add(&mut self, region: &str) {
        if !self.replicas.iter().any(|known| known == region) {
            self.replicas.push(region.to_owned());
            self.replicas.sort();
        }
    }

    /// As DescribeKey shows it.
    pub(in crate::keystore) fn configuration(&self, key: KeyId) -> MultiRegionConfiguration {
        let place = |region: &String| RelatedKey {
            arn: format!("arn:aws:kms:{region}:{}:key/{key}", caller::ACCOUNT),
            region: region.clone(),
        };
        MultiRegionConfiguration {
            multi_region_key_type: self.key_type(),
            primary_key: place(&self.primary.region),
            replica_keys: self.replicas.iter().map(place).collect(),
        }
    }
}

/// The related keys of a multi-Region key. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MultiRegionConfiguration {
    /// PRIMARY or REPLICA: what the key that was asked for is.
    pub multi_region_key_type: &'static str,
    /// The primary key.
    pub primary_key: RelatedKey,
    /// The replicas.
    pub replica_keys: Vec<RelatedKey>,
}

/// One of the related keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RelatedKey {
    /// Its ARN.
    pub arn: String,
    /// Its Region.
    pub region: String,
}

impl Keystore {
    /// The Region that this keystore is.
    pub fn region(&self) -> Result<String, KeystoreError> {
        let region = self.read(|reader| Ok(reader.meta()?.region))?;
        Ok(region.unwrap_or_else(|| DEFAULT_REGION.to_owned()))
    }

    /// Gives a keystore that was made without one the name of the Region that it is.
    /// Errors: `Validation` if it has another name, or the name is none.
    pub fn adopt_region(&self, name: &str) -> Result<(), KeystoreError> {
        check_region(name)?;
        match self.read(|reader| Ok(reader.meta()?.region))? {
            Some(own) if own == name => Ok(()),
            Some(own) => Err(KeystoreError::Validation(format!(
                "the keystore '{}' is the Region {own}, not {name}",
                self.path().display()
            ))),
            None => self.write(|writer| {
                writer.meta.region = Some(name.to_owned());
                Ok(())
            }),
        }
    }
}

impl KeyRecord {
    /// Errors: `UnsupportedOperation` for a replica, which gets its material from the primary.
    pub(in crate::keystore) fn must_be_primary(&self, key: KeyId) -> Result<(), KeystoreError> {
        match &self.regions {
            Some(regions) if !regions.is_primary() => {
                Err(ReplicaError::IsReplica { key, primary: regions.primary.region.clone() }.into())
            }
            _ => Ok(()),
        }
    }
}

/// Is this the name of a Region? Like those of AWS: 1 to 32 of a-z 0-9 -.
/// Errors: `Validation`.
pub(in crate::keystore) fn check_region(name: &str) -> Result<(), KeystoreError> {
    let letters = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let fine = |letter: char| letters(letter) || letter == '-';
    if (1..=32).contains(&name.len()) && name.chars().all(fine) && name.starts_with(letters) {
        return Ok(());
    }
    Err(KeystoreError::Validation(format!(
        "'{name}' is no name of a Region: 1 to 32 of a-z 0-9 - are expected"
    )))
}
