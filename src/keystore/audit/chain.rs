//! The chain of hashes: each record's hash goes over the hash of the one before it.

use serde::{Deserialize, Serialize};

use crate::crypto::hash;

/// A place in the chain: everything up to it is bound by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the record; 0 is before the first.
    pub seq: u64,
    /// The hash of the chain up to and with it.
    #[serde(with = "hex32")]
    pub hash: [u8; 32],
}

impl Position {
    /// Before the first record of a keystore's log.
    pub(super) fn genesis(keystore: &[u8; 16]) -> Self {
        Self { seq: 0, hash: hash::sha256(&[GENESIS, keystore]) }
    }

    /// The place of the record `seq` that follows this one and says `line`.
    /// Source: SHA-256 of the previous hash (32 bytes), the number (u64, big endian) and the line.
    pub(super) fn followed_by(&self, seq: u64, line: &str) -> Self {
        Self { seq, hash: hash::sha256(&[&self.hash, &seq.to_be_bytes(), line.as_bytes()]) }
    }
}

/// Hashes in hexadecimal, as outsiders compute them.
pub(super) mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::keystore::audit) fn serialize<S: Serializer>(
        hash: &[u8; 32],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::hex(hash))
    }

    pub(in crate::keystore::audit) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        super::unhex(&text).ok_or_else(|| de::Error::custom("64 hexadecimal digits are expected"))
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let mut digits = text.chars().map(|digit| digit.to_digit(16));
    for byte in &mut hash {
        *byte = u8::try_from(digits.next()?? << 4 | digits.next()??).ok()?;
    }
    digits.next().is_none().then_some(hash)
}

const GENESIS: &[u8] = b"kmsfs/1/audit/genesis";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_all_that_came_before() {
        let start = Position::genesis(&[1; 16]);
        let one = start.followed_by(1, "a");
        assert_ne!(one.followed_by(2, "b"), start.followed_by(1, "x").followed_by(2, "b"));
        assert_ne!(one.hash, start.followed_by(2, "a").hash);
        assert_ne!(start, Position::genesis(&[2; 16]));
    }
}
