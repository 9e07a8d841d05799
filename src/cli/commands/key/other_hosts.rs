//! Volumes on other hosts that take their keys from this keystore: nobody here knows them.
//!
//! They cannot be looked into before something is destroyed. All that is known is who could have
//! made them: the access keys that may use the encryption contexts of volumes, and keystores that
//! have the same material, in another Region or before a restore.

use serde_json::{Value, json};

use crate::cli::report::exit::{CliError, Exit};
use crate::id::MaterialId;
use crate::keystore::{AccessKeyEntry, Keystore};

/// The access keys with which other hosts take keys for volumes.
pub(in crate::cli) struct OtherHosts {
    keys: Vec<AccessKeyEntry>,
    /// There were others, or they are those of another keystore.
    others: bool,
    /// Another keystore has, or had, some of the materials.
    shared: bool,
}

impl OtherHosts {
    /// Looks them up, for materials of which `shared` are, or were, in another keystore too. A key that
    /// is switched off, or has ended, may have made volumes as well.
    pub(in crate::cli) fn of(keystore: &Keystore, shared: &[MaterialId]) -> Result<Self, CliError> {
        let keys = keystore.list_access_keys()?.into_iter().filter(|key| key.for_volumes);
        let (others, shared) = (keystore.has_served_hosts()?, !shared.is_empty());
        Ok(Self { keys: keys.collect(), others, shared })
    }

    /// What is not known, as a line of a warning that ends with a newline; nothing if no other
    /// host takes keys.
    pub(in crate::cli) fn warning(&self) -> String {
        if self.is_nobody() {
            return String::new();
        }
        format!("  vaults on other hosts are not known here: {} may have made some\n", self.names())
    }

    /// The same for programs.
    pub(in crate::cli) fn value(&self) -> Value {
        self.keys.iter().map(|key| json!(key.access_key_id)).collect()
    }

    /// Errors: `Refused` if there may be volumes elsewhere, and nobody says that they were looked
    /// into.
    pub(in crate::cli) fn must_be_checked(&self, checked: bool) -> Result<(), CliError> {
        if checked || self.is_nobody() {
            return Ok(());
        }
        let what = format!(
            "vaults on other hosts may need the material, and are not known here: {} may have \
             made some",
            self.names()
        );
        Err(CliError::new(Exit::Refused, what).advise(
            "re-wrap them there (kmsfs rewrap VAULT --kms URL); when none needs it any more, add \
             --other-hosts-checked",
        ))
    }

    fn is_nobody(&self) -> bool {
        self.keys.is_empty() && !self.others && !self.shared
    }

    fn names(&self) -> String {
        let name = |key: &AccessKeyEntry| match &key.user_name {
            Some(user) => format!("access key {} (user:{user})", key.access_key_id),
            None => format!("access key {} (root)", key.access_key_id),
        };
        let others = "an access key that is deleted, or of another keystore".to_owned();
        let others = self.others.then_some(others);
        let shared = self.shared.then(|| "another keystore with the same material".to_owned());
        self.keys.iter().map(name).chain(others).chain(shared).collect::<Vec<_>>().join(", ")
    }
}
