//! A key that is being made on a token.

use std::sync::Arc;

use crate::crypto::random;
use crate::id::MaterialId;
use crate::keystore::custom_store::link::Link;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::custom_store::KeyStoreError;
use crate::keystore::model::key_store::{ConnectionState, KeyStoreId};
use crate::keystore::records::key_store::KeyStoreRecord;
use crate::keystore::storage::sealed::Reader;
use crate::keystore::token::Serial;

/// A key on a token that no row names yet. It is taken off the token unless it is kept.
pub(in crate::keystore) struct TokenKey {
    store: KeyStoreId,
    material: MaterialId,
    link: Arc<Link>,
    made_on: Option<Serial>,
    kept: bool,
}

impl TokenKey {
    /// Makes the key.
    /// Errors: `KeyStore`.
    pub(in crate::keystore) fn make(
        store: KeyStoreId,
        link: Arc<Link>,
    ) -> Result<Self, KeystoreError> {
        let material = MaterialId::from_bytes(random::id16()?);
        link.ask(|_| Ok(())).map_err(KeyStoreError::of)?;
        // From here on a key that may be there is taken off the token when this is dropped.
        let mut made = Self { store, material, link, made_on: None, kept: false };
        let made_on = made.link.ask(|token| token.make_key(material.as_bytes(), "kmsfs"));
        made.made_on = made_on.map_err(KeyStoreError::of)?;
        Ok(made)
    }

    /// Its key store.
    pub(in crate::keystore) fn store(&self) -> KeyStoreId {
        self.store
    }

    /// Its id on the token.
    pub(in crate::keystore) fn material(&self) -> MaterialId {
        self.material
    }

    /// The token that it is on.
    pub(in crate::keystore) fn made_on(&self) -> Option<&Serial> {
        self.made_on.as_ref()
    }

    /// A row names the key now.
    pub(in crate::keystore) fn keep(&mut self) {
        self.kept = true;
    }

    /// The key store may have changed while the token made the key.
    /// Errors: `KeyStore`.
    pub(in crate::keystore) fn check(&self, reader: &Reader<'_>) -> Result<(), KeystoreError> {
        connected(reader, self.store).map(drop)
    }
}

impl Drop for TokenKey {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.link.destroy(self.material, self.made_on()) {
            log::warn!("an unused key {} stays on its token: {error}", self.material);
        }
    }
}

/// Errors: `KeyStore`.
pub(in crate::keystore) fn connected(
    reader: &Reader<'_>,
    id: KeyStoreId,
) -> Result<KeyStoreRecord, KeystoreError> {
    let record = KeyStoreRecord::find(reader, id)?;
    match record.connection {
        ConnectionState::Connected => Ok(record),
        state @ (ConnectionState::Disconnected | ConnectionState::Failed) => {
            Err(KeyStoreError::InvalidState { id, state, advice: "connect it first" }.into())
        }
    }
}
