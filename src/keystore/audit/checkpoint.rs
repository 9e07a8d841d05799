//! Signed statements about the chain, which outsiders can keep and check.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::EventTime;
use crate::crypto::CryptoError;
use crate::crypto::ed25519::{PublicKey, SigningKey};
use crate::keystore::model::audit::Position;
use crate::keystore::storage::sealed::base64;

/// What a signature says about a position in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Statement {
    /// The log had this position.
    Checkpoint,
    /// The log begins behind this position: earlier records were pruned, or there were none.
    Anchor,
    /// An export with this digest was made, of a log that ended with the record of this number.
    Export,
}

/// A position in the chain, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The id of the keystore, a UUID.
    pub keystore: String,
    /// The position.
    #[serde(flatten)]
    pub position: Position,
    /// When it was signed.
    pub time: EventTime,
    /// 64 bytes of Ed25519.
    #[serde(with = "base64")]
    pub signature: Vec<u8>,
}

impl Checkpoint {
    /// Signs a position.
    pub(super) fn sign(
        statement: Statement,
        key: &SigningKey,
        keystore: &[u8; 16],
        position: Position,
        time: EventTime,
    ) -> Self {
        let signature = key.sign(&message(statement, keystore, &position, time)).to_vec();
        Self { keystore: keystore_id(keystore), position, time, signature }
    }

    /// Checks that the holder of the key said this.
    /// Errors: `NotAuthentic`.
    pub(super) fn check(&self, statement: Statement, key: &PublicKey) -> Result<(), CryptoError> {
        let keystore: crate::id::VolumeId =
            self.keystore.parse().map_err(|_| CryptoError::NotAuthentic)?;
        let said = message(statement, keystore.as_bytes(), &self.position, self.time);
        key.verify(&said, &self.signature)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("a checkpoint is plain data"))
    }
}

/// The keystore's id as a UUID.
pub(super) fn keystore_id(keystore: &[u8; 16]) -> String {
    crate::id::VolumeId::from_bytes(*keystore).to_string()
}

/// The signed bytes.
/// Shape: a label, its last byte 0; keystore id 16; number u64; hash 32; milliseconds i64; big
/// endian.
fn message(
    statement: Statement,
    keystore: &[u8; 16],
    position: &Position,
    time: EventTime,
) -> Vec<u8> {
    let label: &[u8] = match statement {
        Statement::Checkpoint => b"kmsfs/1/audit/checkpoint\0",
        Statement::Anchor => b"kmsfs/1/audit/anchor\0",
        Statement::Export => b"kmsfs/1/audit/export\0",
    };
    let (seq, time) = (position.seq.to_be_bytes(), time.millis().to_be_bytes());
    [label, keystore, &seq, &position.hash, &time].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;

    #[test]
    fn every_part_of_a_checkpoint_is_signed() {
        let key = SigningKey::from_seed(&Secret::random().unwrap());
        let position = Position { seq: 7, hash: [7; 32] };
        let time = EventTime::from_millis(7);
        let good = Checkpoint::sign(Statement::Checkpoint, &key, &[7; 16], position, time);
        assert_eq!(good.check(Statement::Checkpoint, &key.public()), Ok(()));
        let mut bad = vec![good.clone(); 5];
        bad[0].position.seq = 8;
        bad[1].position.hash[0] = 8;
        bad[2].time = EventTime::from_millis(8);
        bad[3].keystore = keystore_id(&[8; 16]);
        bad[4].signature.pop();
        for checkpoint in bad {
            assert!(checkpoint.check(Statement::Checkpoint, &key.public()).is_err());
        }
        assert!(good.check(Statement::Anchor, &key.public()).is_err());
        let line = good.to_string();
        assert_eq!(serde_json::from_str::<Checkpoint>(&line).unwrap(), good);
    }
}
