//! Rank 0: the 16-byte identities that every layer passes along.
//!
//! Each is its own type so that a file id can never stand where a key id is meant.

use std::fmt;
use std::str::FromStr;

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

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for (i, byte) in self.0.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }
    };
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
    /// A KMS key.
    KeyId
}
id16! {
    /// One version of a KMS key's material.
    MaterialId
}

fn parse_hex(text: &str) -> Result<[u8; 16], ParseIdError> {
    let mut digits = text.bytes().filter(|b| *b != b'-').map(|b| char::from(b).to_digit(16));
    let mut id = [0; 16];
    for byte in &mut id {
        let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
            return Err(ParseIdError);
        };
        *byte = u8::try_from(high << 4 | low).map_err(|_| ParseIdError)?;
    }
    if digits.next().is_some() { Err(ParseIdError) } else { Ok(id) }
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
    fn wrong_lengths_and_letters_are_refused() {
        for text in ["", "00", "0g", &"0".repeat(31), &"0".repeat(33), "é"] {
            assert_eq!(text.parse::<KeyId>(), Err(ParseIdError), "{text}");
        }
    }
}
