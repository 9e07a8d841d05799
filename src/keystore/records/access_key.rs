//! Access keys: what users of the network endpoint sign their requests with.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Reader, Record};

/// Can an access key be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessKeyStatus {
    /// It can.
    Active,
    /// It was switched off.
    Inactive,
}

/// An access key as it is listed. Serialises with AWS's member names; times are seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AccessKeyEntry {
    /// Its id.
    pub access_key_id: String,
    /// The user; `None` for the root of the account.
    pub user_name: Option<String>,
    /// Can it be used?
    pub status: AccessKeyStatus,
    /// When it was made.
    pub create_date: UnixTime,
    /// When it was last used, to the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_date: Option<UnixTime>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_date: Option<UnixTime>,
    /// It may use the encryption contexts of volumes.
    pub for_volumes: bool,
}

/// The stored form. Found by a keyed hash of the id.
#[derive(Serialize, Deserialize)]
pub(in crate::keystore) struct AccessKeyRecord {
    pub(in crate::keystore) id: String,
    pub(in crate::keystore) user: Option<String>,
    pub(in crate::keystore) secret: Zeroizing<String>,
    pub(in crate::keystore) status: AccessKeyStatus,
    pub(in crate::keystore) created: UnixTime,
    #[serde(default)]
    pub(in crate::keystore) last_used: Option<UnixTime>,
    #[serde(default)]
    pub(in crate::keystore) expires: Option<UnixTime>,
    #[serde(default)]
    pub(in crate::keystore) for_volumes: bool,
}

impl Record for AccessKeyRecord {
    const TABLE: Table = Table::AccessKey;
}

impl AccessKeyRecord {
    /// Errors: `AccessKeyNotFound`.
    pub(in crate::keystore) fn find(reader: &Reader<'_>, id: &str) -> Result<Self, KeystoreError> {
        let record = reader.get::<Self>(&reader.root().lookup(id))?;
        record.ok_or_else(|| AccessError::AccessKeyNotFound(id.chars().take(128).collect()).into())
    }

    pub(in crate::keystore) fn is_valid(&self, now: UnixTime) -> bool {
        self.status == AccessKeyStatus::Active && self.expires.is_none_or(|end| now < end)
    }

    pub(in crate::keystore) fn entry(&self) -> AccessKeyEntry {
        AccessKeyEntry {
            access_key_id: self.id.clone(),
            user_name: self.user.clone(),
            status: self.status,
            create_date: self.created,
            last_used_date: self.last_used,
            expiration_date: self.expires,
            for_volumes: self.for_volumes,
        }
    }
}
