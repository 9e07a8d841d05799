//! The chain of hashes: each record's hash goes over the hash of the one before it.

use crate::crypto::hash;
use crate::keystore::model::audit::Position;

impl Position {
    /// Before the first record of a keystore's log.
    pub(super) fn genesis(keystore: &[u8; 16]) -> Self {
        Self { seq: 0, hash: hash::sha256(&[GENESIS, keystore]) }
    }

    /// The position of the record `seq` that follows this one and says `line`.
    /// Source: SHA-256 of the previous hash (32 bytes), the number (u64, big endian) and the line.
    pub(super) fn followed_by(&self, seq: u64, line: &str) -> Self {
        Self { seq, hash: hash::sha256(&[&self.hash, &seq.to_be_bytes(), line.as_bytes()]) }
    }
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
