//! Multi-Region keys: the same key in several keystores, each of which is a Region.
//!
//! A key travels in a *transfer*: the destination publishes a [`TransferKey`], the source seals the
//! key for it, the destination opens that once (`records::transfer`). Each keystore signs what it
//! publishes and what it seals, with a key that its root key determines: its *identity*. Who carries the
//! two files compares identities; between keystores that one process has open nothing is carried
//! (`direct`).
//!
//! One of the related keys is the primary (`records::regions`), and only it rotates; replicas get its new
//! material by another transfer. Related keys agree about id, kind and material. Everything else, such as
//! states, aliases, policies and grants, is each keystore's own.

use crate::crypto::ed25519::SigningKey;
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::parse::check_region;
use crate::keystore::model::region::DEFAULT_REGION;
use crate::keystore::records::transfer::{fingerprint, identity, signing_key};

pub(in crate::keystore) mod direct;
pub(in crate::keystore) mod payload;
pub(in crate::keystore) mod receive;
pub(in crate::keystore) mod send;
pub(in crate::keystore) mod sync;

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

    /// What this keystore is known by: the public half of its signing key, in PEM.
    pub fn identity(&self) -> String {
        identity(self.root())
    }

    /// What a person compares to recognise this keystore.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.identity())
    }

    pub(in crate::keystore) fn signing_key(&self) -> SigningKey {
        signing_key(self.root())
    }
}
