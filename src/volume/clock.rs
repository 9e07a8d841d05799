//! Times as numbers; the one place where a volume reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// Nanoseconds since 1970.
pub(super) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A stat's change time in nanoseconds since 1970.
pub fn ctime(stat: &Stat) -> i64 {
    let nanos = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    stat.st_ctime.saturating_mul(1_000_000_000).saturating_add(nanos)
}
