//! One line of the log: who did what with which key, and what came of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::crypto::{CryptoError, random};
use crate::keystore::model::audit::Position;
use crate::keystore::model::caller::Caller;

/// An operation that was asked for. Members are in the order of their names and absent when they
/// say nothing, so that an event has one JSON form, which the chain of hashes goes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The encryption context.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// How many times, for file opens that were counted together and for records that were lost.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// What more there is to say, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The file that was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The ARN of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The last time, if there were several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_time: Option<EventTime>,
    /// The key material.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material: Option<String>,
    /// The operation, by its name in AWS; those of kmsfs alone start with `kmsfs:`.
    pub operation: Cow<'static, str>,
    /// The ARN of who asked.
    pub principal: Cow<'static, str>,
    /// The id that the answer carried as well.
    pub request_id: String,
    /// [`SUCCESS`], or the name of the AWS exception.
    pub result: Cow<'static, str>,
    /// The way the request came: `cli`, `mount`, `socket`, `network`.
    pub source: Cow<'static, str>,
    /// The network address of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<String>,
    /// When, or the first time if there were several.
    pub time: EventTime,
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditRecord {
    /// Its position.
    #[serde(flatten)]
    pub position: Position,
    /// What it says.
    pub event: Event,
}

/// The result of an operation that did what was asked.
pub const SUCCESS: &str = "Success";

impl Event {
    /// A successful operation of a caller.
    pub(in crate::keystore) fn by(
        caller: &Caller,
        operation: &'static str,
        request_id: String,
    ) -> Self {
        Self {
            context: BTreeMap::new(),
            count: 1,
            detail: None,
            file: None,
            key: None,
            last_time: None,
            material: None,
            operation: operation.into(),
            principal: caller.principal.arn().into(),
            request_id,
            result: SUCCESS.into(),
            source: caller.source.as_str().into(),
            source_ip: caller.source_ip.map(|address| address.to_string()),
            time: caller.time().into(),
        }
    }

    /// True if what was asked was done.
    pub fn is_success(&self) -> bool {
        self.result == SUCCESS
    }

    /// The one JSON form.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).expect("an event is plain data")
    }

    /// The latest time that the event speaks of.
    pub(super) fn end(&self) -> EventTime {
        self.last_time.unwrap_or(self.time)
    }
}

/// A random UUID. It also keeps the hash of a record from confirming what somebody guesses that
/// the record says.
/// Errors: `Random`.
pub fn request_id() -> Result<String, CryptoError> {
    Ok(RequestId::draw()?.to_string())
}

/// The same in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestId([u8; 16]);

impl RequestId {
    /// A new one.
    /// Errors: `Random`.
    pub(super) fn draw() -> Result<Self, CryptoError> {
        Ok(Self(random::id16()?))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Builder::from_random_bytes(self.0).into_uuid().fmt(f)
    }
}

/// Milliseconds since 1970. Written as RFC 3339 with three decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(i64);

impl EventTime {
    /// The instant `millis` after 1970.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl From<SystemTime> for EventTime {
    fn from(time: SystemTime) -> Self {
        let millis = |d: std::time::Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(millis(after)),
            Err(before) => Self(-millis(before.duration())),
        }
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl FromStr for EventTime {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let time: jiff::Timestamp = text.parse()?;
        Ok(Self(time.as_millisecond()))
    }
}

impl Serialize for EventTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_epoch(operation: &'static str) -> Event {
        let caller = Caller { at: Some(UNIX_EPOCH), ..Caller::owner() };
        Event::by(&caller, operation, "r".into())
    }

    fn full() -> Event {
        let mut event = at_epoch("Decrypt");
        event.context.insert("b\u{7f}\"\\".into(), "1\n\u{1}".into());
        event.context.insert("a".into(), "ä".into());
        event.count = 3;
        event.detail = Some("words".into());
        event.file = Some("f".into());
        event.key = Some("arn".into());
        event.last_time = Some(EventTime::from_millis(1_700_000_000_123));
        event.material = Some("m".into());
        event.source_ip = Some("127.0.0.1".into());
        event
    }

    /// So that any JSON library that can sort members makes the same bytes.
    #[test]
    fn the_line_has_its_members_sorted_and_reads_back() {
        let (event, line) = (full(), full().line());
        let sorted: BTreeMap<String, serde_json::Value> = serde_json::from_str(&line).unwrap();
        let names: Vec<_> = sorted.keys().cloned().collect();
        assert_eq!(serde_json::to_string(&sorted).unwrap(), line);
        assert_eq!(names.len(), 14, "{names:?}");
        let line = event.line();
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        assert!(line.contains(r#""lastTime":"2023-11-14T22:13:20.123Z""#), "{line}");
        assert!(line.contains(r#""time":"1970-01-01T00:00:00.000Z""#), "{line}");
    }

    #[test]
    fn what_says_nothing_is_left_out() {
        let event = at_epoch("Sign");
        let expected = r#"{"operation":"Sign","principal":"arn:aws:iam::000000000000:root","requestId":"r","result":"Success","source":"cli","time":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(event.line(), expected);
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let id = request_id().unwrap();
        assert_eq!((id.len(), &id[14..15]), (36, "4"));
        assert_ne!(id, request_id().unwrap());
    }
}
