//! Times as numbers; the one place where a volume reads the time of day.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;

/// Nanoseconds since 1970.
pub(in crate::volume) fn now_nanos() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A stat's change time in nanoseconds since 1970.
pub fn ctime(stat: &Stat) -> i64 {
    nanos(stat.st_ctime, stat.st_ctime_nsec)
}

/// A stat's modification time in nanoseconds since 1970; the least or greatest number for one that
/// is too far away.
pub(in crate::volume) fn mtime(stat: &Stat) -> i64 {
    nanos(stat.st_mtime, stat.st_mtime_nsec)
}

fn nanos(seconds: i64, nanos: impl TryInto<i64>) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos.try_into().unwrap_or(0))
}
