//! Transfers as bytes: sealed for one keystore, once, and signed by another.
//!
//! The destination makes a key pair for each transfer and signs the public half. The source seals by
//! HPKE and signs what it made with Ed25519. Everything that says what the transfer is (from where,
//! to where, which key, what for, whose keys) is authenticated by both the seal and the signature.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::ed25519::{PublicKey, SigningKey};
use crate::crypto::hash::{self, Label};
use crate::crypto::hybrid::{self, PrivateKey};
use crate::id::{KeyId, MaterialId};
use crate::keystore::error::KeystoreError;
use crate::keystore::error::replica::ReplicaError;
use crate::keystore::model::action::Action;
use crate::keystore::model::id::text;
use crate::keystore::model::time::UnixTime;
use crate::keystore::storage::root::{RootKey, encode_parts};
use crate::keystore::storage::rows::Table;
use crate::keystore::storage::sealed::{Record, base64};

/// What a keystore publishes to be sent a key. Its text is JSON; nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TransferKey {
    /// The transfer that it is for.
    #[serde(with = "text")]
    pub(in crate::keystore) transfer_id: MaterialId,
    /// The Region that the key shall come to.
    pub region: String,
    /// Of HPKE.
    #[serde(with = "base64")]
    pub(in crate::keystore) public_key: Vec<u8>,
    /// The identity of the keystore that it belongs to.
    pub identity: String,
    #[serde(with = "base64")]
    signature: Vec<u8>,
}

/// What a transfer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferKind {
    /// A new replica.
    Replica,
    /// New material for a replica.
    Sync,
    /// The replica becomes the primary key.
    Primary,
}

/// A key that is sealed for one keystore. Its text is JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Transfer {
    #[serde(with = "text")]
    pub(in crate::keystore) transfer_id: MaterialId,
    /// What it is for.
    pub kind: TransferKind,
    /// The key.
    #[serde(with = "text")]
    pub key_id: KeyId,
    /// The Region that it comes from.
    pub from: String,
    /// The Region that it goes to.
    pub to: String,
    /// The identity of the keystore that it comes from.
    pub identity: String,
    #[serde(with = "base64")]
    encapsulated_key: Vec<u8>,
    #[serde(with = "base64")]
    sealed: Vec<u8>,
    #[serde(with = "base64")]
    signature: Vec<u8>,
}

/// The stored half of a transfer key.
#[derive(Serialize, Deserialize)]
pub(in crate::keystore) struct TransferRecord {
    pub(in crate::keystore) created: UnixTime,
    /// PKCS #8, sealed once more, so that the bytes of the row never hold it.
    #[serde(with = "base64")]
    pub(in crate::keystore) private: Vec<u8>,
}

impl Record for TransferRecord {
    const TABLE: Table = Table::TransferKey;
}

impl TransferKind {
    /// What it takes to receive such a transfer.
    pub(in crate::keystore) fn action(self) -> Action {
        match self {
            Self::Replica => Action::CreateKey,
            Self::Sync => Action::ReplicateKey,
            Self::Primary => Action::UpdatePrimaryRegion,
        }
    }
}

/// What the keystore with this root key is known by.
pub(in crate::keystore) fn identity(root: &RootKey) -> String {
    signing_key(root).public().to_pem()
}

pub(in crate::keystore) fn signing_key(root: &RootKey) -> SigningKey {
    let seed = hash::derive::<32>(root.secret(), root.keystore(), Label::KeystoreIdentity);
    SigningKey::from_seed(&seed)
}

impl TransferKey {
    pub(in crate::keystore) fn sign(
        transfer_id: MaterialId,
        region: String,
        private: &PrivateKey,
        signing: &SigningKey,
    ) -> Result<Self, KeystoreError> {
        let mut key = Self {
            transfer_id,
            region,
            public_key: private.public()?,
            identity: signing.public().to_pem(),
            signature: Vec::new(),
        };
        key.signature = signing.sign(&key.signed()).to_vec();
        Ok(key)
    }

    /// Errors: `Replica(Malformed)`.
    fn check(self) -> Result<Self, KeystoreError> {
        let checked = verify(&self.identity, &self.signed(), &self.signature);
        checked.map(|()| self).ok_or(ReplicaError::Malformed("transfer key").into())
    }

    fn signed(&self) -> Vec<u8> {
        encode_parts(&[
            b"kmsfs/1/transfer-key",
            self.transfer_id.as_bytes(),
            self.region.as_bytes(),
            &self.public_key,
            self.identity.as_bytes(),
        ])
    }
}

impl Transfer {
    /// Seals `payload` for the owner of `to`.
    pub(in crate::keystore) fn seal(
        kind: TransferKind,
        key_id: KeyId,
        from: String,
        to: &TransferKey,
        payload: &[u8],
        signing: &SigningKey,
    ) -> Result<Self, KeystoreError> {
        let mut transfer = Self {
            transfer_id: to.transfer_id,
            kind,
            key_id,
            from,
            to: to.region.clone(),
            identity: signing.public().to_pem(),
            encapsulated_key: Vec::new(),
            sealed: Vec::new(),
            signature: Vec::new(),
        };
        let head = transfer.head(&to.public_key, &to.identity);
        let sealed = hybrid::seal(&to.public_key, &head, &[], payload)?;
        transfer.encapsulated_key = sealed.encapsulated;
        transfer.sealed = sealed.ciphertext;
        transfer.signature = signing.sign(&transfer.signed(&head)).to_vec();
        Ok(transfer)
    }

    /// Opens it with the private half of the transfer key that it was sealed for.
    /// Errors: `Replica(Malformed)`.
    pub(in crate::keystore) fn open(
        &self,
        private: &PrivateKey,
        own_identity: &str,
    ) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
        let malformed = || KeystoreError::from(ReplicaError::Malformed("transfer of a key"));
        let head = self.head(&private.public()?, own_identity);
        verify(&self.identity, &self.signed(&head), &self.signature).ok_or_else(malformed)?;
        let sealed = hybrid::Sealed {
            encapsulated: self.encapsulated_key.clone(),
            ciphertext: self.sealed.clone(),
        };
        private.open(&sealed, &head, &[]).map_err(|_| malformed())
    }

    /// Everything that says what the transfer is.
    fn head(&self, destination_key: &[u8], destination: &str) -> Vec<u8> {
        let kind: &[u8] = match self.kind {
            TransferKind::Replica => b"replica",
            TransferKind::Sync => b"sync",
            TransferKind::Primary => b"primary",
        };
        encode_parts(&[
            b"kmsfs/1/transfer",
            self.transfer_id.as_bytes(),
            kind,
            self.key_id.as_bytes(),
            self.from.as_bytes(),
            self.to.as_bytes(),
            self.identity.as_bytes(),
            destination.as_bytes(),
            destination_key,
        ])
    }

    fn signed(&self, head: &[u8]) -> Vec<u8> {
        encode_parts(&[b"kmsfs/1/transfer-signature", head, &self.encapsulated_key, &self.sealed])
    }
}

pub(in crate::keystore) fn verify(identity: &str, signed: &[u8], signature: &[u8]) -> Option<()> {
    PublicKey::from_pem(identity)?.verify(signed, signature).ok()
}

/// What a person compares: the first half of the SHA-256 of an identity.
pub(in crate::keystore) fn fingerprint(identity: &str) -> String {
    let digest = hash::sha256(&[identity.trim().as_bytes()]);
    let groups = digest.chunks(2).take(8).map(base16ct::lower::encode_string);
    groups.collect::<Vec<_>>().join("-")
}

macro_rules! json_text {
    ($type:ident, $what:literal, $check:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&serde_json::to_string_pretty(self).map_err(|_| fmt::Error)?)
            }
        }

        impl FromStr for $type {
            type Err = KeystoreError;

            fn from_str(text: &str) -> Result<Self, KeystoreError> {
                let parsed = serde_json::from_str(text);
                $check(parsed.map_err(|_| ReplicaError::Malformed($what))?)
            }
        }

        impl $type {
            /// What a person compares with the fingerprint that the other keystore shows.
            pub fn fingerprint(&self) -> String {
                fingerprint(&self.identity)
            }
        }
    };
}

json_text!(TransferKey, "transfer key", Self::check);
json_text!(Transfer, "transfer of a key", Ok);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);

    fn destination() -> (PrivateKey, TransferKey) {
        let signing = SigningKey::from_seed(&Secret::filled(|seed| seed.fill(2)));
        let private = PrivateKey::generate().unwrap();
        let id = MaterialId::from_bytes([3; 16]);
        let key = TransferKey::sign(id, "b".into(), &private, &signing).unwrap();
        (private, key)
    }

    fn transfer(to: &TransferKey) -> Transfer {
        let signing = SigningKey::from_seed(&Secret::filled(|seed| seed.fill(1)));
        let from = "a".to_owned();
        Transfer::seal(TransferKind::Replica, KEY, from, to, b"payload", &signing).unwrap()
    }

    #[test]
    fn both_texts_read_back_and_the_transfer_opens_at_its_destination_only() {
        let (private, key) = destination();
        let key: TransferKey = key.to_string().parse().unwrap();
        let sent: Transfer = transfer(&key).to_string().parse().unwrap();
        assert_eq!(*sent.open(&private, &key.identity).unwrap(), b"payload");
        assert!(sent.open(&destination().0, &key.identity).is_err());
        assert!(sent.open(&private, &sent.identity).is_err());
    }

    #[test]
    fn nothing_about_a_transfer_or_a_transfer_key_can_be_changed() {
        let (private, key) = destination();
        let sent = transfer(&key);
        let changes: [fn(&mut Transfer); 8] = [
            |t| t.kind = TransferKind::Primary,
            |t| t.key_id = KeyId::from_bytes([9; 16]),
            |t| t.from = "c".into(),
            |t| t.to = "c".into(),
            |t| t.transfer_id = MaterialId::from_bytes([9; 16]),
            |t| t.sealed[3] ^= 1,
            |t| t.encapsulated_key[5] ^= 1,
            |t| t.signature[5] ^= 1,
        ];
        for change in changes {
            let mut changed = sent.clone();
            change(&mut changed);
            assert!(changed.open(&private, &key.identity).is_err());
        }
        let mut other = key.clone();
        other.region = "c".into();
        assert!(other.to_string().parse::<TransferKey>().is_err());
        let mut other = key;
        other.public_key = destination().1.public_key;
        assert!(other.to_string().parse::<TransferKey>().is_err());
    }
}
