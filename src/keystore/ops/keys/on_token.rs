//! Keys of key stores: made on the token, destroyed on it.

use crate::id::KeyId;
use crate::keystore::custom_store::token_key::{TokenKey, connected};
use crate::keystore::engine::Keystore;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::key_store::KeyStoreId;
use crate::keystore::records::key::KeyRecord;
use crate::keystore::storage::sealed::{Reader, Writer};

impl Keystore {
    /// Makes a key on the token of a key store.
    /// Errors: `KeyStore`, `Token`.
    pub(in crate::keystore) fn make_on_token(
        &self,
        store: KeyStoreId,
    ) -> Result<TokenKey, KeystoreError> {
        let link = self.read(|reader| {
            connected(reader, store)?;
            self.key_stores().link(reader, store)
        })?;
        TokenKey::make(store, link)
    }

    /// Destroys those of the `doomed` keys that are on tokens. Gives those back whose token does not
    /// answer: their rows must stay, or nobody would know what is left there.
    pub(in crate::keystore) fn destroy_on_tokens(
        &self,
        doomed: impl FnOnce(&Reader<'_>) -> Result<Vec<KeyId>, KeystoreError>,
    ) -> Result<Vec<KeyId>, KeystoreError> {
        let doomed = self.read(|reader| {
            let mut found = Vec::new();
            for key in doomed(reader)? {
                let record = KeyRecord::find(reader, key)?;
                if let Some(store) = record.key_store {
                    let link = self.key_stores().link(reader, store)?;
                    found.push((key, record.current, record.made_on, link));
                }
            }
            Ok(found)
        })?;
        let mut left = Vec::new();
        for (key, material, made_on, link) in doomed {
            let destroyed = link.destroy(material, made_on.as_ref());
            if let Err(error) = destroyed {
                log::warn!("key {key} waits for its token to be destroyed: {error}");
                left.push(key);
            }
        }
        Ok(left)
    }
}

/// How many keys belong to a key store.
pub(in crate::keystore) fn count(
    writer: &Writer<'_>,
    id: KeyStoreId,
) -> Result<usize, KeystoreError> {
    let keys = writer.all::<KeyRecord>()?;
    Ok(keys.iter().filter(|key| key.record.key_store == Some(id)).count())
}
