//! Custom key stores: keys that a PKCS#11 token makes and keeps, in the place of CloudHSM.
//!
//! A key store is a token and its PIN, stored sealed. While it is connected, its keys wrap on the
//! token (`live`); the keystore holds only what it knows about them. What a call means here that
//! AWS defines for clusters of CloudHSM: the cluster is the token, by label or serial number, the
//! trust anchor is the path of the PKCS#11 module, the password is the PIN.
//!
//! The connection is a fact of the keystore, not of a process: each process logs in to the token
//! when it first needs it. No token is asked under a lock of the keystore.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::crypto::random;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::custom_store::KeyStoreError;
use crate::keystore::model::id::text;
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::root::{RootKey, place};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{self, Reader, Record, Writer, base64};
use crate::keystore::token::{Pin, TokenError, TokenPlace};

/// The id of a key store: `cks-` and 17 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyStoreId(pub(in crate::keystore) [u8; 16]);

/// Is a key store connected?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionState {
    /// Its keys can be used while the token is there.
    Connected,
    /// Its keys are unavailable.
    Disconnected,
    /// The last attempt to connect failed; disconnect before the next one.
    Failed,
}

/// Why an attempt to connect failed. Spelled as AWS spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectionErrorCode {
    /// The PIN is wrong.
    InvalidCredentials,
    /// The token is not there.
    ClusterNotFound,
    /// The token takes no PIN any more.
    UserLockedOut,
    /// The module or the token fails.
    InternalError,
}

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
        reader.get(&id.0)?.ok_or_else(|| KeyStoreError::NotFound(id.to_string()).into())
    }

    pub(in crate::keystore) fn save(
        &self,
        writer: &mut Writer<'_>,
        id: KeyStoreId,
    ) -> Result<(), KeystoreError> {
        writer.put(&id.0, None, self)
    }

    pub(in crate::keystore) fn place(&self) -> TokenPlace {
        TokenPlace::new(&self.module, &self.token)
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
        let opened = root.open_row(&pin_place(id), &self.pin);
        opened.map(Pin::new).map_err(|_| sealed::tampered(Table::KeyStore, &id.0))
    }
}

pub(in crate::keystore) fn seal_pin(
    root: &RootKey,
    id: KeyStoreId,
    pin: &Pin,
) -> Result<Vec<u8>, KeystoreError> {
    Ok(root.seal_row(&pin_place(id), pin.expose())?)
}

fn pin_place(id: KeyStoreId) -> Vec<u8> {
    place(&[b"key store pin", &id.0])
}

impl KeyStoreId {
    const DIGITS: usize = 17;

    pub(in crate::keystore) fn random() -> Result<Self, KeystoreError> {
        let mut bytes = random::id16()?;
        let (_, rest) = bytes.split_at_mut(Self::DIGITS / 2);
        rest.fill(0);
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyStoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "cks-{}", digits.get(..Self::DIGITS).unwrap_or_default())
    }
}

impl FromStr for KeyStoreId {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        let unknown = || KeystoreError::from(KeyStoreError::NotFound(text.to_owned()));
        let digits = text.strip_prefix("cks-").filter(|digits| digits.len() == Self::DIGITS);
        let padded = format!("{}{}", digits.ok_or_else(unknown)?, "0".repeat(32 - Self::DIGITS));
        let id = padded.parse::<crate::id::MaterialId>().map_err(|_| unknown())?;
        Ok(Self(*id.as_bytes()))
    }
}

impl ConnectionErrorCode {
    pub(in crate::keystore) fn of(error: &TokenError) -> Self {
        match error {
            TokenError::WrongPin(_) => Self::InvalidCredentials,
            TokenError::PinUnusable(..) => Self::UserLockedOut,
            TokenError::NotFound(_) | TokenError::Unavailable(..) => Self::ClusterNotFound,
            TokenError::Module { .. }
            | TokenError::Ambiguous(_)
            | TokenError::Unsupported(..)
            | TokenError::KeyMissing(_)
            | TokenError::NotAuthentic => Self::InternalError,
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Failed => "failed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_of_aws_and_read_back() {
        let id = KeyStoreId::random().unwrap();
        let text = id.to_string();
        assert_eq!(text.len(), 21);
        assert_eq!(text.parse::<KeyStoreId>().unwrap(), id);
        for wrong in ["", "cks-", "cks-1234567890123456", "cks-1234567890123456x", "1234567890"] {
            let error = wrong.parse::<KeyStoreId>().unwrap_err();
            assert_eq!(error.aws_name(), "CustomKeyStoreNotFoundException", "{wrong}");
        }
    }
}
