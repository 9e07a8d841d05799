//! What callers name keys by: ids, ARNs, aliases. Parsed once, then trusted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::access::AccessError;

const PARTITION: &str = "arn:aws:kms:local:000000000000:";

/// A key's ARN: `arn:aws:kms:local:000000000000:key/<id>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyArn(pub KeyId);

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PARTITION}key/{}", self.0)
    }
}

/// An alias with its `alias/` prefix: 7 to 256 of `a-z A-Z 0-9 : / _ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AliasName(String);

impl AliasName {
    /// The alias of the key that kmsfs makes when none is named.
    pub fn default_key() -> Self {
        Self("alias/kmsfs/default".to_owned())
    }

    /// The name with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The alias's ARN.
    pub fn arn(&self) -> String {
        format!("{PARTITION}{}", self.0)
    }
}

impl FromStr for AliasName {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":/_-".contains(c);
        let valid = text.strip_prefix("alias/").is_some_and(|name| {
            !name.is_empty() && !name.starts_with("aws/") && name.chars().all(allowed)
        });
        if valid && text.len() <= 256 {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeystoreError::InvalidAliasName(text.chars().take(256).collect()))
        }
    }
}

impl TryFrom<String> for AliasName {
    type Error = KeystoreError;

    fn try_from(text: String) -> Result<Self, KeystoreError> {
        text.parse()
    }
}

impl From<AliasName> for String {
    fn from(alias: AliasName) -> Self {
        alias.0
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key as a caller names it: id, key ARN, alias or alias ARN.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// By its id.
    Id(KeyId),
    /// By one of its aliases.
    Alias(AliasName),
}

impl FromStr for KeyRef {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        let invalid = || KeystoreError::InvalidKeyRef(text.chars().take(2048).collect());
        let (local, is_arn) = match text.strip_prefix(PARTITION) {
            Some(local) => (local, true),
            None => (text, false),
        };
        if local.starts_with("alias/") {
            return local.parse().map(Self::Alias).map_err(|_| invalid());
        }
        let id = if is_arn { local.strip_prefix("key/").ok_or_else(invalid)? } else { local };
        id.parse().map(Self::Id).map_err(|_| invalid())
    }
}

impl From<KeyId> for KeyRef {
    fn from(id: KeyId) -> Self {
        Self::Id(id)
    }
}

impl From<AliasName> for KeyRef {
    fn from(alias: AliasName) -> Self {
        Self::Alias(alias)
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

/// A grant: 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GrantId([u8; 32]);

impl GrantId {
    pub(in crate::keystore) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(in crate::keystore) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for GrantId {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        let invalid = || -> KeystoreError {
            AccessError::InvalidGrantId(text.chars().take(128).collect()).into()
        };
        let half = |digits: Option<&str>| {
            let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or_else(invalid)
        };
        if text.len() != 64 {
            return Err(invalid());
        }
        let (high, low) = (half(text.get(..32))?, half(text.get(32..))?);
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&high.to_be_bytes());
        bytes[16..].copy_from_slice(&low.to_be_bytes());
        Ok(Self(bytes))
    }
}

/// Ids in their text form, for records and reports.
pub(in crate::keystore) mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::keystore) fn serialize<T: Display, S: Serializer>(
        id: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in crate::keystore) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }

    /// The same for ids that may be missing.
    pub(in crate::keystore) mod optional {
        use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

        pub(in crate::keystore) fn serialize<T: Display, S: Serializer>(
            id: &Option<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match id {
                Some(id) => serializer.collect_str(id),
                None => serializer.serialize_none(),
            }
        }

        pub(in crate::keystore) fn deserialize<'de, T, D>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            let text = Option::<String>::deserialize(deserializer)?;
            text.map(|text| text.parse()).transpose().map_err(de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
