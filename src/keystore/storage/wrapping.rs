//! Wrapping keys: one for each KMS key, sealed under the root key in a row of its own. Deleting the
//! row destroys all materials of the key at once.

use super::root::{RootKey, encode_parts};
use super::rows::{Rows, Table};
use crate::crypto::Secret;
use crate::id::KeyId;
use crate::keystore::error::KeystoreError;

/// A key's wrapping key; `None` when its row is missing or was changed.
/// Errors: those of the file.
pub(super) fn open(
    rows: &Rows<'_>,
    root: &RootKey,
    key: KeyId,
) -> Result<Option<Secret<32>>, KeystoreError> {
    let row = rows.get(Table::Wrapping, key.as_bytes())?;
    Ok(row.and_then(|row| root.open_wrapping(&wrapping_aad(key), &row.sealed).ok()))
}

pub(in crate::keystore) fn wrapping_aad(key: KeyId) -> Vec<u8> {
    encode_parts(&[b"wrapping", key.as_bytes()])
}
