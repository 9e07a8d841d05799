//! Custom key stores: keys that a PKCS#11 token makes and keeps, in the place of CloudHSM.
//!
//! A key store is a token and its PIN, stored sealed. While it is connected, its keys wrap on the
//! token (`custom_store`); the keystore holds only what it knows about them. What a call means here that
//! AWS defines for clusters of CloudHSM: the cluster is the token, by label or serial number, the
//! trust anchor is the path of the PKCS#11 module, the password is the PIN.
//!
//! The connection is a fact of the keystore, not of a process: each process logs in to the token
//! when it first needs it. No token is asked under a lock of the keystore.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::keystore::error::KeystoreError;
use crate::keystore::error::custom_store::KeyStoreError;
use crate::keystore::model::id::text;
use crate::keystore::model::key_store::{ConnectionErrorCode, ConnectionState, KeyStoreId};
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::root::{RootKey, encode_parts};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{self, Reader, Record, Writer, base64};
use crate::keystore::token::{Pin, Serial, TokenRef};

/// A key store as DescribeCustomKeyStores shows it. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyStoreEntry {
    /// Its id.
    #[serde(with = "text")]
    pub custom_key_store_id: KeyStoreId,
    /// Its name.
    pub custom_key_store_name: String,
    /// The token, by label or serial number.
    pub cloud_hsm_cluster_id: String,
    /// The path of the PKCS#11 module.
    pub trust_anchor_certificate: PathBuf,
    /// Is it connected?
    pub connection_state: ConnectionState,
    /// Why the last attempt to connect failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_error_code: Option<ConnectionErrorCode>,
    /// When it was created.
    pub creation_date: UnixTime,
}

/// The stored form of a key store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::keystore) struct KeyStoreRecord {
    pub(in crate::keystore) name: String,
    pub(in crate::keystore) module: PathBuf,
    pub(in crate::keystore) token: String,
    /// Which token that was when it was last seen; `None` of a store of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::keystore) serial: Option<Serial>,
    /// Sealed once more, so that the bytes of the row never hold it.
    #[serde(with = "base64")]
    pub(in crate::keystore) pin: Vec<u8>,
    pub(in crate::keystore) created: UnixTime,
    pub(in crate::keystore) connection: ConnectionState,
    pub(in crate::keystore) problem: Option<ConnectionErrorCode>,
    /// Counts connections: what a process holds of an earlier one is no longer valid.
    pub(in crate::keystore) connections: u64,
}

impl Record for KeyStoreRecord {
    const TABLE: Table = Table::KeyStore;
}

impl KeyStoreRecord {
    /// Errors: `KeyStore(NotFound)`.
    pub(in crate::keystore) fn find(
        reader: &Reader<'_>,
        id: KeyStoreId,
    ) -> Result<Self, KeystoreError> {
        reader.get(id.as_bytes())?.ok_or_else(|| KeyStoreError::NotFound(id.to_string()).into())
    }

    pub(in crate::keystore) fn save(
        &self,
        writer: &mut Writer<'_>,
        id: KeyStoreId,
    ) -> Result<(), KeystoreError> {
        writer.put(id.as_bytes(), None, self)
    }

    pub(in crate::keystore) fn token_ref(&self) -> TokenRef {
        TokenRef::new(&self.module, &self.token)
    }

    pub(in crate::keystore) fn entry(self, id: KeyStoreId) -> KeyStoreEntry {
        KeyStoreEntry {
            custom_key_store_id: id,
            custom_key_store_name: self.name,
            cloud_hsm_cluster_id: self.token,
            trust_anchor_certificate: self.module,
            connection_state: self.connection,
            connection_error_code: self.problem,
            creation_date: self.created,
        }
    }

    /// Errors: `Tampered`.
    pub(in crate::keystore) fn open_pin(
        &self,
        root: &RootKey,
        id: KeyStoreId,
    ) -> Result<Pin, KeystoreError> {
        let opened = root.open_row(&pin_aad(id), &self.pin);
        opened.map(Pin::new).map_err(|_| sealed::tampered(Table::KeyStore, id.as_bytes()))
    }
}

pub(in crate::keystore) fn seal_pin(
    root: &RootKey,
    id: KeyStoreId,
    pin: &Pin,
) -> Result<Vec<u8>, KeystoreError> {
    Ok(root.seal_row(&pin_aad(id), pin.expose())?)
}

fn pin_aad(id: KeyStoreId) -> Vec<u8> {
    encode_parts(&[b"key store pin", id.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of earlier versions no serial number is known.
    #[test]
    fn a_record_without_a_serial_number_is_read_and_stays_as_it_is() {
        let text = r#"{"name":"a","module":"/lib/m.so","token":"t","pin":"","created":1,
            "connection":"CONNECTED","problem":null,"connections":2}"#;
        let record: KeyStoreRecord = serde_json::from_str(text).unwrap();
        assert_eq!(record.serial, None);
        assert!(!serde_json::to_string(&record).unwrap().contains("serial"));
    }
}
