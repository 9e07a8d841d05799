//! The root key and what is derived from it.

use crate::crypto::hash::{self, Label};
use crate::crypto::xaes::XaesKey;
use crate::crypto::{CryptoError, Secret};
use crate::keystore::error::KeystoreError;

/// The key that everything in a keystore is sealed under, directly or through wrapping keys. It
/// is stored only in unlock slots, sealed.
pub(in crate::keystore) struct RootKey {
    root: Secret<32>,
    keystore: [u8; 16],
    rows: XaesKey,
    set: Secret<32>,
    lookup: Secret<32>,
    wrapping: XaesKey,
}

impl RootKey {
    /// The root key of the keystore with this id.
    pub(in crate::keystore) fn new(root: Secret<32>, keystore: [u8; 16]) -> Self {
        let derive = |label| hash::derive::<32>(&root, &keystore, label);
        Self {
            rows: XaesKey::new(&derive(Label::KeystoreRow)),
            set: derive(Label::KeystoreSet),
            lookup: derive(Label::KeystoreLookup),
            wrapping: XaesKey::new(&derive(Label::KeystoreWrapping)),
            root,
            keystore,
        }
    }

    /// The key itself, for unlock slots and exports.
    pub(in crate::keystore) fn secret(&self) -> &Secret<32> {
        &self.root
    }

    /// The keystore that it belongs to.
    pub(in crate::keystore) fn keystore(&self) -> &[u8; 16] {
        &self.keystore
    }

    /// Seals what a row says. `aad` is table, primary key and clear columns.
    pub(in crate::keystore) fn seal_row(
        &self,
        aad: &[u8],
        body: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.rows.seal(aad, body)
    }

    /// Opens a row. Errors: `NotAuthentic` if `aad` or any byte is another.
    pub(in crate::keystore) fn open_row(
        &self,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<zeroize::Zeroizing<Vec<u8>>, CryptoError> {
        self.rows.open(aad, sealed)
    }

    /// A row's term in the digest of the row set. Never stored by itself.
    pub(in crate::keystore) fn set_term(&self, aad: &[u8], sealed: &[u8]) -> [u8; 32] {
        hash::hmac_sha256(&self.set, &[aad, sealed])
    }

    /// What a name is found by.
    pub(in crate::keystore) fn lookup(&self, name: &str) -> [u8; 32] {
        hash::hmac_sha256(&self.lookup, &[name.as_bytes()])
    }

    /// Seals a wrapping key. `aad` binds it to its key.
    pub(in crate::keystore) fn seal_wrapping(
        &self,
        aad: &[u8],
        wrapping: &Secret<32>,
    ) -> Result<Vec<u8>, CryptoError> {
        self.wrapping.seal(aad, wrapping.expose())
    }

    /// Opens what [`RootKey::seal_wrapping`] made.
    pub(in crate::keystore) fn open_wrapping(
        &self,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Secret<32>, KeystoreError> {
        let opened = self.wrapping.open(aad, sealed)?;
        Secret::from_slice(&opened).ok_or(KeystoreError::Crypto(CryptoError::NotAuthentic))
    }
}

/// Parts as unambiguous bytes: each with its length. What a sealed row is bound to is encoded so.
pub(in crate::keystore) fn encode_parts(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_parts_are_encoded_differently() {
        assert_ne!(encode_parts(&[b"ab", b"c"]), encode_parts(&[b"a", b"bc"]));
        assert_ne!(encode_parts(&[b"a"]), encode_parts(&[b"a", b""]));
    }

    #[test]
    fn a_row_opens_under_its_own_data_in_its_keystore_only() {
        let secret = Secret::random().unwrap();
        let root = RootKey::new(secret.duplicate(), [1; 16]);
        let sealed = root.seal_row(b"here", b"body").unwrap();
        assert_eq!(root.open_row(b"here", &sealed).unwrap().as_slice(), b"body");
        assert!(root.open_row(b"there", &sealed).is_err());
        assert!(RootKey::new(secret, [2; 16]).open_row(b"here", &sealed).is_err());
    }
}
