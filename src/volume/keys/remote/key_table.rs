//! What is known of the keys of an endpoint, and no older than a few seconds.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};

use super::answers::{material, refused, strange};
use super::connection::Connection;
use crate::endpoint::EndpointError;
use crate::id::{KeyId, MaterialId};
use crate::volume::model::error::{Result, VolumeError};

/// What the requests and the thread that watches the keys share.
#[derive(Debug)]
pub(super) struct KeyTable {
    pub(super) connection: Connection,
    /// How long keys count as usable while the endpoint does not answer.
    pub(super) grace: Duration,
    pub(super) keys: Mutex<HashMap<KeyId, KeyEntry>>,
    /// What was learnt before is to be asked again before it is used.
    pub(super) refreshed: Mutex<Option<Instant>>,
    pub(super) watched: Mutex<HashSet<KeyId>>,
}

/// What the endpoint said of a key.
#[derive(Debug, Clone)]
pub(super) struct KeyEntry {
    /// The id as the service spells it.
    pub(super) name: String,
    pub(super) usable: bool,
    pub(super) material: MaterialId,
    pub(super) at: Instant,
    /// Since when the endpoint answers without saying anything of the key: it throttles, fails, or
    /// is not the KMS at all.
    pub(super) unclear_since: Option<Instant>,
}

/// Why nothing was learnt of a key.
pub(super) enum DescribeError {
    Refused(EndpointError),
    Strange,
}

impl DescribeError {
    pub(super) fn is_missing_key(&self) -> bool {
        matches!(self, Self::Refused(error) if error.aws_name() == Some("NotFoundException"))
    }

    pub(super) fn about(self, key: KeyId) -> VolumeError {
        match self {
            Self::Refused(error) => refused(key, error),
            Self::Strange => strange("DescribeKey gives no key id"),
        }
    }
}

impl KeyTable {
    /// A key as the service spells it. AWS has UUIDs and `mrk-` ids, and the 16 bytes of an id do
    /// not tell which.
    pub(super) fn spelling(&self, key: KeyId) -> Result<String> {
        if let Some(known) = self.keys().get(&key) {
            return Ok(known.name.clone());
        }
        self.known(key).map(|known| known.name)
    }

    /// What is known of a key and no older than a few seconds.
    pub(super) fn known(&self, key: KeyId) -> Result<KeyEntry> {
        let known = self.keys().get(&key).cloned();
        let refreshed = *self.refreshed();
        let fresh = |known: &KeyEntry| known.at.elapsed() < FRESH && Some(known.at) > refreshed;
        if let Some(known) = known.filter(fresh) {
            return Ok(known);
        }
        self.ask(key)
    }

    /// Asks the service about a key, whichever way it spells its id.
    pub(super) fn ask(&self, key: KeyId) -> Result<KeyEntry> {
        let known = self.keys().get(&key).map(|known| known.name.clone());
        let name = known.unwrap_or_else(|| key.to_string());
        let found = match self.describe(&name) {
            Err(failed) if failed.is_missing_key() && !name.starts_with(MULTI_REGION) => {
                let digits: String = name.chars().filter(|letter| *letter != '-').collect();
                self.describe(&format!("{MULTI_REGION}{digits}"))
            }
            found => found,
        };
        match found.map_err(|failed| failed.about(key)) {
            Ok((found, known)) if found == key => Ok(known),
            Ok(_) => Err(VolumeError::KeyUnusable(key)),
            Err(error) => {
                if let Some(known) = self.keys().get_mut(&key) {
                    known.note(&error);
                }
                Err(error)
            }
        }
    }

    /// DescribeKey, and notes what it says.
    pub(super) fn describe(&self, name: &str) -> Result<(KeyId, KeyEntry), DescribeError> {
        let answer = self.connection.call("DescribeKey", &json!({ "KeyId": name }));
        let answer = answer.map_err(DescribeError::Refused)?;
        let metadata = &answer["KeyMetadata"];
        let text = |member: &str| metadata[member].as_str().unwrap_or_default();
        let key = text("KeyId").parse().map_err(|_| DescribeError::Strange)?;
        let known = KeyEntry {
            name: text("KeyId").to_owned(),
            usable: text("KeyState") == "Enabled",
            material: material(&metadata["CurrentKeyMaterialId"]),
            at: Instant::now(),
            unclear_since: None,
        };
        self.keys().insert(key, known.clone());
        Ok((key, known))
    }

    pub(super) fn call(&self, operation: &str, request: &Value, key: KeyId) -> Result<Value> {
        self.connection.call(operation, request).map_err(|error| refused(key, error))
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, HashMap<KeyId, KeyEntry>> {
        self.keys.lock()
    }

    pub(super) fn refreshed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refreshed.lock()
    }

    pub(super) fn watched(&self) -> MutexGuard<'_, HashSet<KeyId>> {
        self.watched.lock()
    }
}

impl KeyEntry {
    /// DescribeKey gave an error instead of an answer.
    fn note(&mut self, error: &VolumeError) {
        match error {
            VolumeError::KeyUnusable(_) => self.usable = false,
            VolumeError::Kms(_) | VolumeError::KmsUnreachable(_) => {
                self.unclear_since.get_or_insert_with(Instant::now);
            }
            _ => {}
        }
    }
}

/// How long what was learnt of a key may be used without asking again.
const FRESH: Duration = Duration::from_secs(5);

const MULTI_REGION: &str = "mrk-";
