//! Rank 0: the 16-byte identities that every layer passes along.
//!
//! Each is its own type so that a file id can never stand where a key id is meant.

use std::fmt;
use std::str::FromStr;

use uuid::{Builder, Uuid};

/// The text was not an id of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id: 32 hexadecimal digits are expected, with or without dashes")
    }
}

impl std::error::Error for ParseIdError {}

macro_rules! id16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes of the id.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// True for the all-zero id, which never names anything.
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

/// The text form of a UUID: 32 hexadecimal digits in five groups.
macro_rules! uuid_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Uuid::from_bytes(self.0).fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    )*};
}

id16! {
    /// A volume: what `kmsfs init` makes.
    VolumeId
}
id16! {
    /// One generation of a file's contents: new with every new file key.
    FileId
}
id16! {
    /// A directory of a volume.
    DirId
}
id16! {
    /// One place in the tree of a volume: an entry of a directory, or the root.
    DirPlace
}
id16! {
    /// A KMS key.
    ///
    /// Its text is a UUID; that of a multi-Region key, which carries a mark in its bytes, is `mrk-`
    /// and 32 hexadecimal digits, as in AWS KMS.
    KeyId
}
id16! {
    /// One version of a KMS key's material.
    MaterialId
}

uuid_text!(VolumeId, FileId, DirId, DirPlace, MaterialId);

const MULTI_REGION: &str = "mrk-";

impl KeyId {
    /// The id of a key of one Region: a UUID of version 4 with these random bytes.
    pub const fn single_region(random: [u8; 16]) -> Self {
        Self(Builder::from_random_bytes(random).into_uuid().into_bytes())
    }

    /// The id of a multi-Region key with these random bytes.
    pub const fn multi_region(mut random: [u8; 16]) -> Self {
        random[6] |= 0xf0;
        random[8] |= 0xf0;
        Self(random)
    }

    /// True for the id of a multi-Region key. No UUID has such a version and variant.
    pub const fn is_multi_region(&self) -> bool {
        self.0[6] & 0xf0 == 0xf0 && self.0[8] & 0xf0 == 0xf0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_multi_region() {
            return Uuid::from_bytes(self.0).fmt(f);
        }
        write!(f, "{MULTI_REGION}{:x}", base16ct::HexDisplay(&self.0))
    }
}

impl FromStr for KeyId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse_hex(text.strip_prefix(MULTI_REGION).unwrap_or(text)).map(Self)
    }
}

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let read = base16ct::mixed::decode_vec(text.replace('-', ""));
    read.ok().and_then(|id| id.try_into().ok()).ok_or(ParseIdError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_a_uuid_and_reads_back() {
        let id = KeyId::from_bytes(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233-3435-3637-3839-616263646566");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_of_multi_region_keys_are_told_by_their_mark() {
        let plain = KeyId::single_region([0xff; 16]);
        assert!(!plain.is_multi_region());
        assert_eq!(plain.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let marked = KeyId::multi_region([0; 16]);
        assert!(marked.is_multi_region());
        assert_eq!(marked.to_string(), "mrk-000000000000f000f000000000000000");
        assert_eq!(marked.to_string().parse(), Ok(marked));
    }

    #[test]
    fn wrong_lengths_and_letters_are_refused() {
        for text in ["", "00", "0g", &"0".repeat(31), &"0".repeat(33), "é"] {
            assert_eq!(text.parse::<KeyId>(), Err(ParseIdError), "{text}");
        }
    }
}
