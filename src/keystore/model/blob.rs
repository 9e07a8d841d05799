//! The bytes of a ciphertext.

use std::fmt;

use crate::crypto::xaes;
use crate::id::{KeyId, MaterialId};
use crate::keystore::model::context::EncryptionContext;

/// A ciphertext that says which key and which material made it.
///
/// Shape: version 1 (u8) | algorithm (u8) | key id 16 | material id 16 | nonce 24 | ciphertext |
/// tag 16: 106 bytes for a 32-byte key. The first 34 bytes are authenticated together with the
/// encryption context. Algorithm 1 is XAES-256-GCM; 2 is AES-256-GCM on a token, whose nonce has
/// 12 bytes: zeros follow it, so that the rest has its place and its length. A random nonce of 24
/// bytes never ends in 12 zeros, so the nonce tells the algorithm where it is not stored.
#[derive(Clone, PartialEq, Eq)]
pub struct CiphertextBlob(Vec<u8>);

const VERSION: u8 = 1;
const XAES_256_GCM: u8 = 1;
const AES_256_GCM_ON_TOKEN: u8 = 2;
const PADDING: [u8; 12] = [0; 12];
const HEADER_LEN: usize = 34;

/// Bytes of a blob without its ciphertext.
pub const BLOB_OVERHEAD: usize = HEADER_LEN + xaes::OVERHEAD;

impl CiphertextBlob {
    /// Reads a blob that came from outside. `None` for an unknown version or algorithm or an
    /// impossible length.
    pub(in crate::keystore) fn read(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [VERSION, algorithm, ..]
                if (BLOB_OVERHEAD..=MAX_PLAINTEXT + BLOB_OVERHEAD).contains(&bytes.len())
                    && *algorithm == algorithm_of(bytes.get(HEADER_LEN..).unwrap_or_default()) =>
            {
                Some(Self(bytes.to_vec()))
            }
            _ => None,
        }
    }

    /// Puts a blob together that was stored in parts, as file headers do. `None` when `sealed` has
    /// an impossible length.
    pub(in crate::keystore) fn assemble(
        key: KeyId,
        material: MaterialId,
        sealed: &[u8],
    ) -> Option<Self> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + sealed.len());
        bytes.extend_from_slice(&header(algorithm_of(sealed), key, material));
        bytes.extend_from_slice(sealed);
        let possible = xaes::OVERHEAD..=MAX_PLAINTEXT + xaes::OVERHEAD;
        possible.contains(&sealed.len()).then_some(Self(bytes))
    }

    /// The whole blob.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key that made it.
    pub fn key_id(&self) -> KeyId {
        KeyId::from_bytes(self.id_at(2))
    }

    /// The material that made it.
    pub fn material_id(&self) -> MaterialId {
        MaterialId::from_bytes(self.id_at(18))
    }

    /// Nonce, ciphertext and tag: 72 bytes for a 32-byte key.
    pub fn sealed(&self) -> &[u8] {
        self.0.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The same as a token made it, without the padding; `None` if no token made it.
    pub(in crate::keystore) fn sealed_on_token(&self) -> Option<Vec<u8>> {
        let (nonce, rest) = self.sealed().split_at_checked(PADDING.len())?;
        rest.strip_prefix(&PADDING).map(|body| [nonce, body].concat())
    }

    /// Puts a blob together from what a token made. `None` when it has an impossible length.
    pub(in crate::keystore) fn from_token(
        key: KeyId,
        material: MaterialId,
        sealed: &[u8],
    ) -> Option<Self> {
        let (nonce, body) = sealed.split_at_checked(PADDING.len())?;
        Self::assemble(key, material, &[nonce, &PADDING, body].concat())
    }

    fn id_at(&self, offset: usize) -> [u8; 16] {
        let id = self.0.get(offset..).and_then(<[u8]>::first_chunk);
        *id.expect("every constructor checks that the header is whole")
    }
}

/// Ids only: a blob is no secret, but its bytes say nothing to a reader.
impl fmt::Debug for CiphertextBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CiphertextBlob")
            .field("key", &self.key_id())
            .field("material", &self.material_id())
            .field("len", &self.0.len())
            .finish()
    }
}

/// Longest plaintext that Encrypt takes. Source: AWS KMS quota.
pub const MAX_PLAINTEXT: usize = 4096;

/// What a ciphertext authenticates besides its plaintext: its header and the context.
pub(in crate::keystore) fn aad(
    key: KeyId,
    material: MaterialId,
    context: &EncryptionContext,
) -> Vec<u8> {
    aad_of(XAES_256_GCM, key, material, context)
}

/// The same for a ciphertext that a token makes.
pub(in crate::keystore) fn token_aad(
    key: KeyId,
    material: MaterialId,
    context: &EncryptionContext,
) -> Vec<u8> {
    aad_of(AES_256_GCM_ON_TOKEN, key, material, context)
}

fn algorithm_of(sealed: &[u8]) -> u8 {
    match sealed.get(PADDING.len()..) {
        Some(rest) if rest.starts_with(&PADDING) => AES_256_GCM_ON_TOKEN,
        _ => XAES_256_GCM,
    }
}

fn aad_of(algorithm: u8, key: KeyId, material: MaterialId, context: &EncryptionContext) -> Vec<u8> {
    let mut aad = Vec::with_capacity(256);
    aad.extend_from_slice(&header(algorithm, key, material));
    context.append_canonical(&mut aad);
    aad
}

fn header(algorithm: u8, key: KeyId, material: MaterialId) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (format, ids) = header.split_at_mut(2);
    let (key_part, material_part) = ids.split_at_mut(16);
    format.copy_from_slice(&[VERSION, algorithm]);
    key_part.copy_from_slice(key.as_bytes());
    material_part.copy_from_slice(material.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);
    const MATERIAL: MaterialId = MaterialId::from_bytes([2; 16]);

    #[test]
    fn parts_and_whole_are_the_same_blob() {
        let blob = CiphertextBlob::assemble(KEY, MATERIAL, &[3; 72]).unwrap();
        assert_eq!(blob.as_bytes().len(), 106);
        assert_eq!(CiphertextBlob::read(blob.as_bytes()).unwrap(), blob);
        assert_eq!((blob.key_id(), blob.material_id()), (KEY, MATERIAL));
        assert_eq!(blob.sealed(), [3; 72]);
    }

    #[test]
    fn other_versions_and_lengths_are_invalid() {
        let blob = CiphertextBlob::assemble(KEY, MATERIAL, &[3; 72]).unwrap();
        let mut bytes = blob.as_bytes().to_vec();
        for len in 0..BLOB_OVERHEAD {
            assert!(CiphertextBlob::read(&bytes[..len]).is_none());
        }
        for position in [0, 1] {
            bytes[position] ^= 0xff;
            assert!(CiphertextBlob::read(&bytes).is_none());
            bytes[position] ^= 0xff;
        }
        // What a token made has its own algorithm, and the nonce says the same.
        let token = CiphertextBlob::from_token(KEY, MATERIAL, &[3; 60]).unwrap();
        assert_eq!((token.as_bytes()[1], token.sealed().len()), (2, 72));
        assert_eq!(token.sealed_on_token(), Some(vec![3; 60]));
        assert_eq!(CiphertextBlob::assemble(KEY, MATERIAL, token.sealed()).unwrap(), token);
        assert_eq!(blob.sealed_on_token(), None);
        let mut lying = token.as_bytes().to_vec();
        lying[1] = 1;
        assert!(CiphertextBlob::read(&lying).is_none());
        assert!(CiphertextBlob::read(&[1; 4097 + BLOB_OVERHEAD]).is_none());
        assert!(CiphertextBlob::assemble(KEY, MATERIAL, &[3; 39]).is_none());
    }
}
