//! Forms that values have on the wire: bytes in base64, times as numbers, material ids.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64, Encoding};
use serde::Serialize;
use serde::de::{self, Deserialize, Deserializer};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::error::Fault;
use crate::id::MaterialId;

/// Bytes that a request brings. Wiped when dropped, not shown by `Debug`.
pub(in crate::server) struct Blob(Zeroizing<Vec<u8>>);

impl Blob {
    /// The bytes.
    pub(in crate::server) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let mut bytes = Zeroizing::new(vec![0; text.len()]);
        let len = Base64::decode(text.as_bytes(), &mut bytes)
            .map_err(|_| de::Error::custom("not base64"))?
            .len();
        bytes.truncate(len);
        Ok(Self(bytes))
    }
}

/// A point in time that a request brings: seconds since 1970, with or without a fraction.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Time(pub(in crate::server) SystemTime);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let length = Duration::try_from_secs_f64(seconds.abs()).map_err(de::Error::custom)?;
        let time = if seconds < 0.0 {
            UNIX_EPOCH.checked_sub(length)
        } else {
            UNIX_EPOCH.checked_add(length)
        };
        time.map(Self).ok_or_else(|| de::Error::custom("a time that no clock shows"))
    }
}

/// Bytes as an answer carries them.
pub(in crate::server) fn base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// A record of the keystore as JSON.
/// Errors: `KMSInternalException`, which no record of the keystore leads to.
pub(in crate::server) fn value(record: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(record).map_err(|error| {
        log::error!("a record cannot be written as JSON: {error}");
        Fault::internal()
    })
}

/// A material's id as AWS KMS writes it: 64 hexadecimal digits. The keystore's have 32 of them; the
/// others are zeros.
pub(in crate::server) fn material_id(material: MaterialId) -> String {
    format!("{:0<64}", base16ct::lower::encode_string(material.as_bytes()))
}

/// The material that 64 digits name.
/// Errors: `NotFoundException` for digits that no material has.
pub(in crate::server) fn parse_material_id(text: &str) -> Result<MaterialId, Fault> {
    let unknown = || Fault::not_found(format!("Key material '{text}' does not exist"));
    let (id, zeros) = text.split_at_checked(32).ok_or_else(unknown)?;
    if zeros.len() != 32 || zeros.bytes().any(|digit| digit != b'0') {
        return Err(unknown());
    }
    id.parse().map_err(|_| unknown())
}

/// JSON that may carry plaintexts: its texts are wiped when it is dropped.
pub(in crate::server) struct Wiped(pub(in crate::server) Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Leaves out members that are null: AWS KMS omits what it has no value for.
pub(in crate::server) fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_material_id_has_64_digits_and_reads_back() {
        let id = MaterialId::from_bytes(*b"0123456789abcdef");
        let text = material_id(id);
        assert_eq!(text.len(), 64);
        assert_eq!(parse_material_id(&text), Ok(id));
        for wrong in [&text[..32], &text.replace("0000", "0001"), "é", ""] {
            assert_eq!(parse_material_id(wrong).unwrap_err().name(), "NotFoundException");
        }
    }

    #[test]
    fn members_without_a_value_are_left_out() {
        let mut value = json!({ "a": null, "b": [{ "c": null, "d": 1 }] });
        without_nulls(&mut value);
        assert_eq!(value, json!({ "b": [{ "d": 1 }] }));
    }

    #[test]
    fn times_have_fractions_and_bounds() {
        let time = |json: Value| serde_json::from_value::<Time>(json);
        assert_eq!(time(json!(1.5)).unwrap().0, UNIX_EPOCH + Duration::from_millis(1500));
        assert_eq!(time(json!(-1)).unwrap().0, UNIX_EPOCH - Duration::from_secs(1));
        assert!(time(json!(1e300)).is_err());
    }

    #[test]
    fn a_blob_does_not_show_its_bytes() {
        let blob: Blob = serde_json::from_value(json!("AAEC")).unwrap();
        assert_eq!((blob.bytes(), format!("{blob:?}").as_str()), (&[0, 1, 2][..], "Blob(3 bytes)"));
    }
}
