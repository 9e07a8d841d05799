//! The keys of the log, all derived from the keystore's root key.

use zeroize::Zeroizing;

use super::checkpoint::{Checkpoint, Statement, keystore_id};
use super::event::{Event, EventTime};
use super::file::{RecordRow, SignedRow};
use crate::crypto::CryptoError;
use crate::crypto::ed25519::{PublicKey, SigningKey};
use crate::crypto::hash::{self, Label};
use crate::crypto::xaes::XaesKey;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;
use crate::keystore::storage::root::{RootKey, encode_parts};

/// What seals records and signs checkpoints.
pub(super) struct AuditKeys {
    keystore: [u8; 16],
    records: XaesKey,
    signing: SigningKey,
}

impl AuditKeys {
    pub(super) fn new(root: &RootKey) -> Self {
        let keystore = *root.keystore();
        let derive = |label| hash::derive::<32>(root.secret(), &keystore, label);
        Self {
            records: XaesKey::new(&derive(Label::AuditRecord)),
            signing: SigningKey::from_seed(&derive(Label::AuditSigning)),
            keystore,
        }
    }

    /// The position before the first record.
    pub(super) fn genesis(&self) -> Position {
        Position::genesis(&self.keystore)
    }

    pub(super) fn public(&self) -> PublicKey {
        self.signing.public()
    }

    pub(super) fn seal_record(&self, seq: u64, line: &str) -> Result<Vec<u8>, CryptoError> {
        self.records.seal(&encode_parts(&[b"record", &seq.to_be_bytes()]), line.as_bytes())
    }

    pub(super) fn open_record(
        &self,
        seq: u64,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        self.records.open(&encode_parts(&[b"record", &seq.to_be_bytes()]), sealed)
    }

    pub(super) fn seal_last_use(
        &self,
        key: &[u8; 16],
        body: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.records.seal(&encode_parts(&[b"last-use", key]), body)
    }

    pub(super) fn open_last_use(
        &self,
        key: &[u8; 16],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        self.records.open(&encode_parts(&[b"last-use", key]), sealed)
    }

    pub(super) fn sign(
        &self,
        statement: Statement,
        position: Position,
        time: EventTime,
    ) -> SignedRow {
        let made = Checkpoint::sign(statement, &self.signing, &self.keystore, position, time);
        SignedRow { position, time, signature: made.signature }
    }

    /// True if a stored row says what its signature says.
    pub(super) fn is_signed(&self, statement: Statement, row: &SignedRow) -> bool {
        self.statement(row).check(statement, &self.public()).is_ok()
    }

    /// A stored row as a statement about this keystore, signed or not.
    pub(super) fn statement(&self, row: &SignedRow) -> Checkpoint {
        Checkpoint {
            keystore: keystore_id(&self.keystore),
            position: row.position,
            time: row.time,
            signature: row.signature.clone(),
        }
    }
}

impl AuditKeys {
    /// What a record says.
    /// Errors: `Tampered`.
    pub(super) fn event(&self, row: &RecordRow) -> Result<Event, KeystoreError> {
        let opened = self.open_record(row.position.seq, &row.sealed).ok();
        let event = opened.and_then(|line| serde_json::from_slice(&line).ok());
        let record = || row.position.seq.to_string();
        event.ok_or_else(|| KeystoreError::Tampered { table: "record", row: record() })
    }
}
