//! Points in time as the keystore stores and reports them.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 UTC. Displayed as RFC 3339.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The instant `seconds` after 1970.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// This many days later.
    pub(in crate::keystore) const fn plus_days(self, days: u16) -> Self {
        Self(self.0.saturating_add(days as i64 * DAY))
    }

    /// This many seconds later.
    pub(in crate::keystore) const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Whole seconds from `earlier` to here; negative when `earlier` is later.
    pub(in crate::keystore) const fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How long a clock has gone on without a leap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct ClockRun {
    since: UnixTime,
    seen: UnixTime,
}

impl ClockRun {
    /// That of a clock which is right at `now`, as somebody says.
    pub(in crate::keystore) const fn steady(now: UnixTime) -> Self {
        Self { since: UnixTime(now.0.saturating_sub(DAY)), seen: now }
    }

    /// The clock is seen again. After a leap, in either direction, it has to go on for a day anew.
    pub(in crate::keystore) const fn seen_at(self, now: UnixTime) -> Self {
        let leapt = now.since(self.seen).abs() > STEP;
        Self { since: if leapt { now } else { self.since }, seen: now }
    }

    /// The seconds that it has gone on since it was seen, as far as that can be told: none if it leapt,
    /// or went back.
    pub(in crate::keystore) const fn gone_on_to(self, now: UnixTime) -> i64 {
        match now.since(self.seen) {
            step @ 0..=STEP => step,
            _ => 0,
        }
    }

    /// True if it has gone on for a day.
    pub(in crate::keystore) const fn is_steady(self) -> bool {
        self.seen.since(self.since) >= DAY
    }

    /// True if it was not seen for an hour, by this clock.
    pub(in crate::keystore) const fn is_old(self, now: UnixTime) -> bool {
        now.since(self.seen).abs() > DAY / 24
    }
}

/// Seconds of a day.
pub(in crate::keystore) const DAY: i64 = 24 * 60 * 60;

/// A clock that moves further between two looks has leapt, or nobody looked for long. A timer looks
/// once a day, and at times an hour late.
const STEP: i64 = 2 * DAY;

impl From<UnixTime> for SystemTime {
    fn from(time: UnixTime) -> Self {
        let distance = std::time::Duration::from_secs(time.0.unsigned_abs());
        let there = if time.0 < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        there.unwrap_or(UNIX_EPOCH)
    }
}

impl From<SystemTime> for UnixTime {
    fn from(time: SystemTime) -> Self {
        let seconds = |d: std::time::Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(seconds(after)),
            Err(before) => Self(-seconds(before.duration())),
        }
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0.div_euclid(DAY), self.0.rem_euclid(DAY));
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The Gregorian date of a day counted from 1970-01-01: eras of 400 years that start in March,
/// so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_in_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(UnixTime::from_seconds(seconds).to_string(), text);
        }
    }

    #[test]
    fn a_clock_goes_on_by_steps_that_a_daily_timer_makes() {
        let at = |hours: i64| UnixTime(hours * DAY / 24);
        let seen = ClockRun::steady(at(1000));
        for (hours, gone_on, is_steady) in [
            (0, 0, true),
            (25, 25, true),
            (48, 48, true),
            (49, 0, false),
            (-1, 0, false),
            (-49, 0, false),
        ] {
            let now = at(1000 + hours);
            assert_eq!(seen.gone_on_to(now), gone_on * DAY / 24, "{hours}");
            assert_eq!(seen.seen_at(now).is_steady(), is_steady, "{hours}");
        }
        let after_a_week = seen.seen_at(at(1168));
        assert!(!after_a_week.seen_at(at(1191)).is_steady());
        assert!(after_a_week.seen_at(at(1192)).is_steady());
    }

    #[test]
    fn system_time_before_1970_is_negative() {
        let before = UNIX_EPOCH - std::time::Duration::from_secs(5);
        assert_eq!(UnixTime::from(before).seconds(), -5);
    }
}
