//! What volumes from before the state record kept of their sessions, as plain JSON (FORMAT section
//! 12.5).

use serde::Deserialize;

use super::session::{Intents, SessionWord};
use super::state::{StateRecord, Unrecovered};

/// Believed once, and only if no anchor knows the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// The number of the last session.
    pub number: i64,
    /// The number of the last one that ended in a crash; 0 for none.
    pub crashed: i64,
    /// Begin of that session and end of its crash, in nanoseconds since 1970.
    pub span: (i64, i64),
}

#[derive(Debug, Default, Deserialize)]
struct Json {
    #[serde(default)]
    number: i64,
    #[serde(default)]
    crashed: i64,
    open_since: Option<i64>,
    #[serde(default)]
    crashes: Vec<(i64, i64)>,
}

impl Counted {
    /// Reads the file; what is not of its form says nothing. A session that is open in it ended in
    /// a crash, which is noticed at `now`.
    pub fn parse(bytes: &[u8], now: i64) -> Self {
        let json: Json = serde_json::from_slice(bytes).unwrap_or_default();
        let spans = json.crashes.iter().copied();
        let spans = spans.chain(json.open_since.map(|since| (since, now)));
        let span = spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let crashed = if json.open_since.is_some() { json.number } else { json.crashed };
        // Anybody can write a number: one that is no count must not use up those that follow, nor
        // excuse what was sealed by a word.
        let number = json.number.clamp(0, LAST_COUNT);
        let crashed = if (0..=LAST_COUNT).contains(&crashed) { crashed } else { 0 };
        let span = span.map_or((0, 0), |(from, to)| (from.min(now), to.min(now)));
        Self { number, crashed, span }
    }

    /// The record that stands for it.
    pub fn record(self) -> StateRecord {
        let crash = Unrecovered {
            word: SessionWord::from_bits(self.crashed),
            counted: true,
            withheld: false,
            span: self.span,
            intents: Intents::all(),
            listed: false,
            waiting: None,
        };
        StateRecord {
            word: SessionWord::from_bits(self.number),
            unrecovered: if self.crashed > 0 { vec![crash] } else { Vec::new() },
            ..StateRecord::default()
        }
    }
}

/// Counts are below every word.
const LAST_COUNT: i64 = SessionWord::new(1, 0).bits() - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_count_is_not_taken_for_one() {
        let huge =
            br#"{"number":9223372036854775807,"crashed":9000000000000000000,"crashes":[[1,99]]}"#;
        let counted = Counted::parse(huge, 90);
        assert_eq!(counted, Counted { number: LAST_COUNT, crashed: 0, span: (1, 90) });
        assert_eq!(counted.record().word.number(), 0, "and all numbers are left");
        let less = br#"{"number":-5,"crashed":-1,"open_since":50}"#;
        assert_eq!(Counted::parse(less, 90), Counted { number: 0, crashed: 0, span: (50, 90) });
    }

    #[test]
    fn an_open_session_is_one_that_crashed() {
        let counted = Counted::parse(br#"{"number":7,"crashed":3,"open_since":50}"#, 90);
        assert_eq!(counted, Counted { number: 7, crashed: 7, span: (50, 90) });
        let closed = br#"{"number":7,"crashed":3,"crashes":[[20,30],[10,25]]}"#;
        assert_eq!(Counted::parse(closed, 90), Counted { number: 7, crashed: 3, span: (10, 30) });
        assert_eq!(Counted::parse(b"{", 90), Counted::default());
        assert!(Counted::default().record().unrecovered.is_empty());
    }
}
