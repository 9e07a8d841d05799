//! The key service of an endpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use parking_lot::Mutex;
use serde_json::json;

use super::answers::{check_key, ciphertext, pairs, plaintext, recipient};
use super::connection::Connection;
use super::key_table::{DescribeError, KeyEntry, KeyTable};
use super::watch::KeyWatch;
use crate::crypto::secret::Secret;
use crate::endpoint::Endpoint;
use crate::envelope::Recipient;
use crate::id::{KeyId, MaterialId};
use crate::keystore::{EncryptionContext, Keystore};
use crate::volume::keys::service::{KeyHealth, KeyService};
use crate::volume::model::error::{Result, VolumeError};

/// The keys of an endpoint.
#[derive(Debug)]
pub struct RemoteKeys {
    shared: Arc<KeyTable>,
    _watch: KeyWatch,
}

impl RemoteKeys {
    /// Takes keys from `endpoint`. While it does not answer, keys that are in use stay so for
    /// `grace`.
    ///
    /// # Errors
    /// `Io` when the system has no thread left.
    pub fn new(endpoint: Endpoint, grace: Duration) -> Result<Self> {
        let shared = Arc::new(KeyTable {
            connection: Connection::new(endpoint),
            grace,
            keys: Mutex::default(),
            refreshed: Mutex::default(),
            watched: Mutex::default(),
        });
        let watch = KeyWatch::start(&shared)?;
        Ok(Self { shared, _watch: watch })
    }
}

impl KeyService for RemoteKeys {
    fn generate(&self, key: KeyId, context: &EncryptionContext) -> Result<(Secret<32>, Recipient)> {
        let request = json!({
            "KeyId": self.shared.spelling(key)?,
            "KeySpec": "AES_256",
            "EncryptionContext": pairs(context),
        });
        let mut answer = self.shared.call("GenerateDataKey", &request, key)?;
        Ok((plaintext(&mut answer)?, recipient(&answer, key, "KeyMaterialId")?))
    }

    fn unwrap(&self, wrapped: &Recipient, context: &EncryptionContext) -> Result<Secret<32>> {
        let request = json!({
            "KeyId": self.shared.spelling(wrapped.key)?,
            "CiphertextBlob": Base64::encode_string(&ciphertext(wrapped)?),
            "EncryptionContext": pairs(context),
        });
        let mut answer = self.shared.call("Decrypt", &request, wrapped.key)?;
        check_key(&answer, wrapped.key)?;
        plaintext(&mut answer)
    }

    fn rewrap(&self, old: &Recipient, to: KeyId, context: &EncryptionContext) -> Result<Recipient> {
        let request = json!({
            "CiphertextBlob": Base64::encode_string(&ciphertext(old)?),
            "SourceKeyId": self.shared.spelling(old.key)?,
            "SourceEncryptionContext": pairs(context),
            "DestinationKeyId": self.shared.spelling(to)?,
            "DestinationEncryptionContext": pairs(context),
        });
        let answer = self.shared.call("ReEncrypt", &request, old.key)?;
        recipient(&answer, to, "DestinationKeyMaterialId")
    }

    fn current_material(&self, key: KeyId) -> Result<MaterialId> {
        self.shared.known(key).map(|known| known.material)
    }

    fn find_key(&self, name: &str) -> Result<KeyId> {
        let found = self.shared.describe(name);
        found.map(|(key, _)| key).map_err(|failed| match failed {
            DescribeError::Refused(error)
                if error.aws_name().is_some() && !error.is_no_answer() =>
            {
                VolumeError::Kms(error.to_string())
            }
            failed => failed.about(KeyId::from_bytes([0; 16])),
        })
    }

    fn refresh(&self) -> Result<()> {
        *self.shared.refreshed() = Some(Instant::now());
        Ok(())
    }

    fn keystore(&self) -> Option<&Keystore> {
        None
    }

    fn health(&self, keys: &[KeyId]) -> Vec<(KeyId, KeyHealth)> {
        self.shared.watched().extend(keys);
        let over = |silence: Duration| silence >= self.shared.grace;
        if self.shared.connection.silence().is_some_and(over) {
            return keys.iter().map(|key| (*key, KeyHealth::Unreachable)).collect();
        }
        let known = self.shared.keys();
        let health = |known: &KeyEntry| match known.unclear_since {
            _ if !known.usable => KeyHealth::Unusable,
            Some(since) if over(since.elapsed()) => KeyHealth::Unreachable,
            _ => KeyHealth::Usable,
        };
        keys.iter().filter_map(|key| Some((*key, health(known.get(key)?)))).collect()
    }
}
