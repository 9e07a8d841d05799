//! The encryption context: pairs that a ciphertext is bound to without containing them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Pairs of text, given again at every decryption. Not secret, and order does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EncryptionContext(BTreeMap<String, String>);

/// Context keys with this prefix belong to volumes: nobody else makes ciphertexts with them.
pub const RESERVED_PREFIX: &str = "kmsfs:";

impl EncryptionContext {
    /// The empty context.
    pub fn new() -> Self {
        Self::default()
    }

    /// The context with one pair more; a pair with the same key is replaced.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    /// The pairs, sorted by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// True if all pairs of the other context are in this one.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|(key, value)| self.0.get(key) == Some(value))
    }

    /// True if a key has the prefix that is kept for volumes.
    pub fn is_reserved(&self) -> bool {
        self.0.keys().any(|key| key.starts_with(RESERVED_PREFIX))
    }

    /// Appends the one byte form of the context: what ciphertexts authenticate.
    /// Shape: u32 number of pairs, then for each pair, sorted by key bytes, u32 length and bytes
    /// of the key, u32 length and bytes of the value; big endian.
    pub(in crate::keystore) fn append_canonical(&self, out: &mut Vec<u8>) {
        append_len(self.0.len(), out);
        for (key, value) in &self.0 {
            for text in [key, value] {
                append_len(text.len(), out);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for EncryptionContext {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        pairs.into_iter().fold(Self::new(), |context, (key, value)| context.with(key, value))
    }
}

fn append_len(len: usize, out: &mut Vec<u8>) {
    let len = u32::try_from(len).expect("no text of a context has 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        pairs.iter().copied().collect::<EncryptionContext>().append_canonical(&mut bytes);
        bytes
    }

    #[test]
    fn canonical_bytes_are_sorted_and_length_prefixed() {
        let expected = b"\0\0\0\x02\0\0\0\x01a\0\0\0\x02bc\0\0\0\x01b\0\0\0\0";
        assert_eq!(canonical(&[("a", "bc"), ("b", "")]), expected);
        assert_eq!(canonical(&[("b", ""), ("a", "bc")]), expected);
        assert_eq!(canonical(&[]), b"\0\0\0\0");
    }

    /// Three AWS emulators join the pairs without lengths, so that these two are one.
    #[test]
    fn regression_contexts_of_peers_collide_and_ours_do_not() {
        assert_ne!(canonical(&[("ab", "c")]), canonical(&[("a", "bc")]));
    }

    #[test]
    fn the_prefix_of_volumes_is_recognised() {
        assert!(EncryptionContext::new().with("kmsfs:file", "x").is_reserved());
        assert!(!EncryptionContext::new().with("app", "kmsfs:file").is_reserved());
    }
}
