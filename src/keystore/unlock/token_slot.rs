//! Unlock slots on a PKCS#11 token: a key that never leaves the token seals the root key.
//!
//! The column `salt` is the id of the key on the token, `root` is nonce 12 | root key 32 | tag 16,
//! and `detail` is module and token, each as its length (u16) and bytes. They say to a person
//! where the key is; who unlocks names them again, because nothing in the file is to be believed
//! before it is unlocked, least of all a library to load.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base16ct::lower::encode_string;

use crate::crypto::Secret;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::SlotRow;
use crate::keystore::storage::sealed::root_aad;
use crate::keystore::token::{Token, TokenError, TokenRef};

/// Makes the slot's key on the token, and fills the columns that depend on it.
/// Errors: `Token`, `Validation`.
pub(in crate::keystore) fn seal(
    token: &Token,
    root: &RootKey,
    mut slot: SlotRow,
) -> Result<SlotRow, KeystoreError> {
    slot.detail = detail(token.token_ref())?;
    token.make_key(&slot.salt, &format!("kmsfs keystore {}", encode_string(root.keystore())))?;
    match token.seal(&slot.salt, &root_aad(root.keystore(), &slot), root.secret().expose()) {
        Ok(sealed) => slot.root = sealed,
        Err(error) => {
            discard(token, &slot);
            return Err(error.into());
        }
    }
    Ok(slot)
}

/// The root key, or `None` if this token has not the slot's key.
/// Errors: `Token` when the token does not answer.
pub(in crate::keystore) fn open(
    token: &Token,
    keystore: &[u8; 16],
    slot: &SlotRow,
) -> Result<Option<RootKey>, KeystoreError> {
    match token.open(&slot.salt, &root_aad(keystore, slot), &slot.root) {
        Ok(opened) => Ok(Secret::from_slice(&opened).map(|secret| RootKey::new(secret, *keystore))),
        Err(TokenError::NotAuthentic | TokenError::KeyMissing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes the key of a slot that was not stored.
pub(in crate::keystore) fn discard(token: &Token, slot: &SlotRow) {
    if let Err(error) = token.destroy_key(&slot.salt, None) {
        let key = encode_string(&slot.salt);
        log::warn!("an unused key {key} stays on {}: {error}", token.token_ref());
    }
}

/// Where the slot's key is, as the slot says.
pub(in crate::keystore) fn token_ref_of(slot: &SlotRow) -> Option<TokenRef> {
    let (module, rest) = part(&slot.detail)?;
    let (token, _) = part(rest)?;
    Some(TokenRef::new(Path::new(OsStr::from_bytes(module)), &String::from_utf8_lossy(token)))
}

fn detail(token_ref: &TokenRef) -> Result<Vec<u8>, KeystoreError> {
    let mut detail = Vec::new();
    for part in [token_ref.module.as_os_str().as_bytes(), token_ref.token.as_bytes()] {
        let len = u16::try_from(part.len()).map_err(|_| {
            KeystoreError::Validation("the name of a module or token is too long".to_owned())
        })?;
        detail.extend_from_slice(&len.to_be_bytes());
        detail.extend_from_slice(part);
    }
    Ok(detail)
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_where_its_key_is() {
        let token_ref = TokenRef::new(Path::new("/lib/module.so"), "a token");
        let mut slot = SlotRow {
            id: 1,
            kind: "token".to_owned(),
            salt: [1; 16],
            cost: [0; 3],
            root: Vec::new(),
            sealed: Vec::new(),
            detail: detail(&token_ref).unwrap(),
        };
        assert_eq!(token_ref_of(&slot), Some(token_ref));
        while slot.detail.pop().is_some() {
            assert_eq!(token_ref_of(&slot), None, "{}", slot.detail.len());
        }
    }
}
