//! GenerateMac, VerifyMac.

use std::sync::Arc;

use crate::crypto::{CryptoError, mac};
use crate::id::KeyId;
use crate::keystore::access::request::RequestContext;
use crate::keystore::engine::Keystore;
use crate::keystore::engine::cache::LiveKey;
use crate::keystore::engine::frame::AuditDetails;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::KeyRef;
use crate::keystore::model::spec::MacAlgorithm;
use crate::keystore::policy::Fact;
use crate::keystore::records::algorithm::{check_algorithm, check_len};
use crate::keystore::records::material::LiveMaterial;

/// What GenerateMac made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mac {
    /// The key that made it.
    pub key: KeyId,
    /// The code, as long as the digest of its hash function.
    pub mac: Vec<u8>,
}

impl Keystore {
    /// The code that authenticates a message of 1 to 4096 bytes.
    /// Errors: `KeyNotFound`, `Disabled`, `InvalidState`, `AccessDenied`, `Validation`;
    /// `InvalidKeyUsage` for a key or an algorithm of another kind.
    pub fn generate_mac(
        &self,
        key: &KeyRef,
        algorithm: MacAlgorithm,
        message: &[u8],
    ) -> Result<Mac, KeystoreError> {
        check_len(message)?;
        self.operate(Action::GenerateMac, None, |details| {
            let live = self.mac_key(Action::GenerateMac, key, algorithm, details)?;
            let mac = mac::generate(algorithm.hash(), secret(&live)?, message)?;
            Ok(Mac { key: live.id, mac })
        })
    }

    /// Checks a code, in constant time; tells the key that made it.
    /// Errors: as [`Keystore::generate_mac`]; `InvalidMac`.
    pub fn verify_mac(
        &self,
        key: &KeyRef,
        algorithm: MacAlgorithm,
        message: &[u8],
        mac: &[u8],
    ) -> Result<KeyId, KeystoreError> {
        check_len(message)?;
        self.operate(Action::VerifyMac, None, |details| {
            let live = self.mac_key(Action::VerifyMac, key, algorithm, details)?;
            match mac::verify(algorithm.hash(), secret(&live)?, message, mac) {
                Ok(()) => Ok(live.id),
                Err(CryptoError::NotAuthentic) => Err(KeystoreError::InvalidMac),
                Err(other) => Err(other.into()),
            }
        })
    }

    fn mac_key(
        &self,
        action: Action,
        key: &KeyRef,
        algorithm: MacAlgorithm,
        details: &mut AuditDetails,
    ) -> Result<Arc<LiveKey>, KeystoreError> {
        let request_context =
            RequestContext::default().naming(key).with(Fact::MacAlgorithm, algorithm.as_str());
        let live = self.admitted(action, self.key_named(key)?, request_context, details)?;
        let spec = live.record.spec;
        check_algorithm(algorithm, spec.mac_algorithms(), spec)?;
        self.stop_if_dry()?;
        Ok(live)
    }
}

fn secret(live: &LiveKey) -> Result<&[u8], KeystoreError> {
    let material = live.record.current;
    match live.material(material) {
        Some(LiveMaterial::Mac(key)) => Ok(key),
        _ => Err(KeystoreError::UnknownMaterial { key: live.id, material }),
    }
}
