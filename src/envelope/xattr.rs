//! Encrypted extended attributes (FORMAT section 8).

use base64ct::{Base64UrlUnpadded, Encoding};

use super::EnvelopeError;
use crate::crypto::secret::Secret;
use crate::crypto::siv::SivKey;
use crate::crypto::xaes;

/// What the backing names of encrypted attributes start with.
pub const XATTR_PREFIX: &str = "user.kmsfs.x.";

const NAME: &str = "extended attribute name";
const VALUE: &str = "extended attribute value";

/// The keys for the attributes of one file or directory.
pub struct XattrKeys {
    owner: [u8; 16],
    names: SivKey,
    values: Secret<32>,
}

impl std::fmt::Debug for XattrKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XattrKeys").finish_non_exhaustive()
    }
}

impl XattrKeys {
    pub(super) fn new(owner: [u8; 16], names: Secret<64>, values: Secret<32>) -> Self {
        Self { owner, names: SivKey::new(&names), values }
    }

    /// The backing name of the attribute `name` (with its `user.` prefix).
    pub fn encode_name(&self, name: &[u8]) -> String {
        let sealed = self.names.seal(&[&self.owner], name);
        format!("{XATTR_PREFIX}{}", Base64UrlUnpadded::encode_string(&sealed))
    }

    /// The name that a backing name stands for.
    ///
    /// # Errors
    /// `NotAuthentic` for a name that these keys did not make.
    pub fn decode_name(&self, encoded: &str) -> Result<Vec<u8>, EnvelopeError> {
        let bad = EnvelopeError::NotAuthentic(NAME);
        let text = encoded.strip_prefix(XATTR_PREFIX).ok_or(bad)?;
        let sealed = Base64UrlUnpadded::decode_vec(text).map_err(|_| bad)?;
        self.names.open(&[&self.owner], &sealed).map_err(|_| bad)
    }

    /// Seals a value: 40 bytes longer than `value`.
    ///
    /// # Errors
    /// `Crypto` if the system gives no randomness.
    pub fn seal_value(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        Ok(xaes::seal(&self.values, &self.aad(name), value)?)
    }

    /// Opens a value.
    ///
    /// # Errors
    /// `NotAuthentic` for a value of another attribute or owner, or one that was changed.
    pub fn open_value(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        xaes::open(&self.values, &self.aad(name), sealed)
            .map(|value| value.to_vec())
            .map_err(|_| EnvelopeError::NotAuthentic(VALUE))
    }

    fn aad(&self, name: &[u8]) -> Vec<u8> {
        [&b"xattr"[..], &self.owner, name].concat()
    }
}
