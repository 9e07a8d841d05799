//! What callers name keys by: ids, ARNs, aliases. Parsed once, then trusted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::KeyId;

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

    /// The alias that a text is.
    pub(in crate::keystore) fn read(text: &str) -> Option<Self> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":/_-".contains(c);
        let name = text.strip_prefix("alias/").filter(|_| text.len() <= 256)?;
        let valid = !name.is_empty() && !name.starts_with("aws/") && name.chars().all(allowed);
        valid.then(|| Self(text.to_owned()))
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

impl TryFrom<String> for AliasName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::read(&text).ok_or("not the name of an alias")
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

impl KeyRef {
    /// The key that a text names.
    pub(in crate::keystore) fn read(text: &str) -> Option<Self> {
        let (local, is_arn) = match text.strip_prefix(PARTITION) {
            Some(local) => (local, true),
            None => (text, false),
        };
        if local.starts_with("alias/") {
            return AliasName::read(local).map(Self::Alias);
        }
        let id = if is_arn { local.strip_prefix("key/")? } else { local };
        id.parse().map(Self::Id).ok()
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

    /// The id that a text is.
    pub(in crate::keystore) fn read(text: &str) -> Option<Self> {
        base16ct::mixed::decode_vec(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", base16ct::HexDisplay(&self.0))
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

    /// The same for sets of ids.
    pub(in crate::keystore) mod set {
        use std::collections::BTreeSet;

        use super::{Deserialize, Deserializer, Display, FromStr, Serializer, de};

        pub(in crate::keystore) fn serialize<T: Display, S: Serializer>(
            ids: &BTreeSet<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(ids.iter().map(T::to_string))
        }

        pub(in crate::keystore) fn deserialize<'de, T, D>(
            deserializer: D,
        ) -> Result<BTreeSet<T>, D::Error>
        where
            T: FromStr<Err: Display> + Ord,
            D: Deserializer<'de>,
        {
            let texts = Vec::<String>::deserialize(deserializer)?;
            texts.into_iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
        }
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
