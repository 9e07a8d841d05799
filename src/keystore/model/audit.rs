//! What the keystore's own file remembers of the audit log.

use serde::{Deserialize, Serialize};

/// What happens to an operation that cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditMode {
    /// It is done all the same; that a record is missing is written down as soon as possible.
    #[default]
    BestEffort,
    /// It is refused. Operations wait for the disk.
    Required,
}

impl AuditMode {
    /// The name of the mode.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Required => "required",
        }
    }
}

/// A position in the chain: everything up to it is bound by its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the record; 0 is before the first.
    pub seq: u64,
    /// The hash of the chain up to and with it.
    #[serde(with = "hex32")]
    pub hash: [u8; 32],
}

/// What the keystore's own file says about the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct AuditNote {
    #[serde(default)]
    pub(in crate::keystore) mode: AuditMode,
    /// A position that the log has had.
    #[serde(default)]
    pub(in crate::keystore) noted: Option<Position>,
    /// Places that the log has had and was found without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(in crate::keystore) lost: Vec<Position>,
}

/// Hashes in hexadecimal, as outsiders compute them.
pub(in crate::keystore) mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(in crate::keystore) fn serialize<S: Serializer>(
        hash: &[u8; 32],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&base16ct::lower::encode_string(hash))
    }

    pub(in crate::keystore) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; 32], D::Error> {
        let read = base16ct::mixed::decode_vec(String::deserialize(from)?).ok();
        let hash = read.and_then(|hash| hash.try_into().ok());
        hash.ok_or_else(|| de::Error::custom("64 hexadecimal digits are expected"))
    }
}
