//! The last cryptographic operation of each key, written along with the records.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::event::{Event, EventTime};
use super::file::Rows;
use super::keys::AuditKeys;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::id::{KeyRef, text};
use crate::keystore::model::time::UnixTime;

/// The last successful cryptographic operation with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct LastUse {
    /// The operation.
    pub(in crate::keystore) operation: String,
    /// When.
    pub(in crate::keystore) time: EventTime,
    /// The request.
    pub(in crate::keystore) request_id: String,
}

/// What is known about the use of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::keystore) struct KeyUsage {
    /// Since when uses are written down; `None` while no log was written.
    pub(in crate::keystore) since: Option<EventTime>,
    /// The last use since then.
    pub(in crate::keystore) last: Option<LastUse>,
}

/// What GetKeyLastUsage answers. Serialises with AWS's member names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyLastUsage {
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// The last use; empty if there was none since tracking began.
    pub key_last_usage: LastUsage,
    /// Since when uses are tracked, or the creation of the key if that is later.
    pub tracking_start_date: UnixTime,
    /// When the key was made.
    pub key_creation_date: UnixTime,
}

/// The last successful cryptographic operation with a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct LastUsage {
    /// The operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<UnixTime>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_request_id: Option<String>,
}

/// The newest use of each key in a batch.
pub(super) struct LastUses(HashMap<KeyId, LastUse>);

impl LastUses {
    /// Those of `events`, and those that no event tells of.
    pub(super) fn of(events: &[Cow<'_, Event>], mut uses: HashMap<KeyId, LastUse>) -> Self {
        for event in events.iter().filter(|event| event.is_success()) {
            let Some((key, operation)) = used_key(event) else { continue };
            let used = LastUse {
                operation: operation.to_owned(),
                time: event.end(),
                request_id: event.request_id.clone(),
            };
            if uses.get(&key).is_none_or(|known| known.time <= used.time) {
                uses.insert(key, used);
            }
        }
        Self(uses)
    }

    /// Replaces what is stored, unless that is newer.
    pub(super) fn store(&self, keys: &AuditKeys, rows: &Rows<'_>) -> Result<(), KeystoreError> {
        for (key, used) in &self.0 {
            let id = key.as_bytes();
            let stored = rows.last_use(id)?.and_then(|sealed| read(keys, id, &sealed));
            if stored.is_some_and(|stored| stored.time > used.time) {
                continue;
            }
            let body = serde_json::to_vec(used).expect("it is plain data");
            rows.put_last_use(id, &keys.seal_last_use(id, &body)?)?;
        }
        Ok(())
    }
}

pub(super) fn read(keys: &AuditKeys, key: &[u8; 16], sealed: &[u8]) -> Option<LastUse> {
    serde_json::from_slice(&keys.open_last_use(key, sealed).ok()?).ok()
}

/// The key that an event used, and the name of the operation in AWS's list of uses.
fn used_key(event: &Event) -> Option<(KeyId, &'static str)> {
    let operation = name_of_use(&event.operation)?;
    match event.key.as_deref()?.parse().ok()? {
        KeyRef::Id(key) => Some((key, operation)),
        KeyRef::Alias(_) => None,
    }
}

/// The name of an operation in AWS's list of uses, if it is in it.
pub(super) fn name_of_use(operation: &str) -> Option<&'static str> {
    let name = match operation {
        "ReEncryptFrom" | "ReEncryptTo" => "ReEncrypt",
        other => other,
    };
    USES.iter().copied().find(|known| *known == name)
}

/// Source: KeyLastUsageTrackingOperation of the AWS KMS API.
const USES: [&str; 12] = [
    "Decrypt",
    "DeriveSharedSecret",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
    "GenerateDataKeyWithoutPlaintext",
    "GenerateMac",
    "ReEncrypt",
    "Sign",
    "Verify",
    "VerifyMac",
];
