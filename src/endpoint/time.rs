//! The one way in which SigV4 writes time: `20150830T123600Z`.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The instant that a stamp names, if it is exactly of this form.
pub(super) fn parse(stamp: &str) -> Option<SystemTime> {
    if stamp.len() != "20150830T123600Z".len() {
        return None;
    }
    let time = DateTime::strptime(FORMAT, stamp).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    // Only what is written back alike was of this form.
    (write(time) == stamp).then(|| SystemTime::from(time))
}

/// The stamp of an instant; a clock outside the years 1 to 9999 gives 1970.
pub(super) fn stamp(time: SystemTime) -> String {
    write(Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn write(time: Timestamp) -> String {
    time.strftime(FORMAT).to_string()
}

const FORMAT: &str = "%Y%m%dT%H%M%SZ";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn stamps_read_back() {
        let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
        assert_eq!(stamp(time), "20150830T123600Z");
        assert_eq!(parse("20150830T123600Z"), Some(time));
    }

    #[test]
    fn other_forms_are_refused() {
        for wrong in [
            "",
            "20150830",
            "20150830T123600",
            "20150830T1236000",
            "20151330T123600Z",
            "2015083 T123600Z",
            "20150830T123660Z",
            "20150830t123600z",
            "2015-08-30T12:3Z",
            "\u{e9}0150830T12360Z",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
