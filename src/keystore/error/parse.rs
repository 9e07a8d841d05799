//! What callers hand in as text or bytes, read with the fault that KMS names for it. The forms
//! themselves stand in `model`, which knows no faults.

use std::str::FromStr;

use super::KeystoreError;
use super::access::AccessError;
use super::custom_store::KeyStoreError;
use crate::id::{KeyId, MaterialId};
use crate::keystore::model::blob::CiphertextBlob;
use crate::keystore::model::id::{AliasName, GrantId, KeyRef};
use crate::keystore::model::key_store::KeyStoreId;
use crate::keystore::model::region::is_region;

impl FromStr for AliasName {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        Self::read(text).ok_or_else(|| KeystoreError::InvalidAliasName(first(text, 256)))
    }
}

impl FromStr for KeyRef {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        Self::read(text).ok_or_else(|| KeystoreError::InvalidKeyRef(first(text, 2048)))
    }
}

impl FromStr for GrantId {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        Self::read(text).ok_or_else(|| AccessError::InvalidGrantId(first(text, 128)).into())
    }
}

impl FromStr for KeyStoreId {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        Self::read(text).ok_or_else(|| KeyStoreError::NotFound(text.to_owned()).into())
    }
}

impl CiphertextBlob {
    /// Reads a blob that came from outside.
    /// Errors: `InvalidCiphertext` for an unknown version or algorithm or an impossible length.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeystoreError> {
        Self::read(bytes).ok_or(KeystoreError::InvalidCiphertext)
    }

    /// Puts a blob together that was stored in parts, as file headers do.
    /// Errors: `InvalidCiphertext` when `sealed` has an impossible length.
    pub fn from_parts(
        key: KeyId,
        material: MaterialId,
        sealed: &[u8],
    ) -> Result<Self, KeystoreError> {
        Self::assemble(key, material, sealed).ok_or(KeystoreError::InvalidCiphertext)
    }
}

/// Is this the name of a Region?
/// Errors: `Validation`.
pub(in crate::keystore) fn check_region(name: &str) -> Result<(), KeystoreError> {
    if is_region(name) {
        return Ok(());
    }
    Err(KeystoreError::Validation(format!(
        "'{name}' is no name of a Region: 1 to 32 of a-z 0-9 - are expected"
    )))
}

/// So much of a text is repeated in an error.
fn first(text: &str, letters: usize) -> String {
    text.chars().take(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keystore::model::id::KeyArn;

    #[test]
    fn a_key_is_found_by_each_of_its_four_forms() {
        let id = KeyId::from_bytes([7; 16]);
        let alias: AliasName = "alias/a:b/c_d-9".parse().unwrap();
        assert_eq!(id.to_string().parse::<KeyRef>().unwrap(), KeyRef::Id(id));
        assert_eq!(KeyArn(id).to_string().parse::<KeyRef>().unwrap(), KeyRef::Id(id));
        assert_eq!(alias.as_str().parse::<KeyRef>().unwrap(), KeyRef::Alias(alias.clone()));
        assert_eq!(alias.arn().parse::<KeyRef>().unwrap(), KeyRef::Alias(alias));
    }

    #[test]
    fn what_is_no_key_gives_the_message_of_aws() {
        let other = "arn:aws:kms:eu-west-1:000000000000:key/00000000-0000-0000-0000-000000000000";
        for (text, message) in [
            ("nonsense", "Invalid keyId 'nonsense'"),
            ("", "Invalid keyId ''"),
            ("alias/", "Invalid keyId 'alias/'"),
            (other, &format!("Invalid arn {other}")),
        ] {
            let error = text.parse::<KeyRef>().unwrap_err();
            assert_eq!(
                (error.aws_name(), error.to_string().as_str()),
                ("NotFoundException", message)
            );
        }
    }

    #[test]
    fn alias_names_are_checked() {
        let long = format!("alias/{}", "x".repeat(251));
        for text in ["", "alias", "alias/", "x", "alias/a b", "alias/aws/s3", "alias/ä", &long] {
            let error = text.parse::<AliasName>().unwrap_err();
            assert_eq!(error.aws_name(), "InvalidAliasNameException", "{text}");
        }
        assert!(long[..256].parse::<AliasName>().is_ok());
    }

    #[test]
    fn what_is_no_key_store_is_not_found() {
        for wrong in ["", "cks-", "cks-1234567890123456", "cks-1234567890123456x", "1234567890"] {
            let error = wrong.parse::<KeyStoreId>().unwrap_err();
            assert_eq!(error.aws_name(), "CustomKeyStoreNotFoundException", "{wrong}");
        }
    }
}
