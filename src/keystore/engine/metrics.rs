//! What a process did, as numbers in the text form of Prometheus, in place of CloudWatch.
//!
//! Counting takes no lock. A series comes into being with its first observation and never goes.

use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counters of an open keystore.
pub(in crate::keystore) struct Metrics {
    series: Box<[OnceLock<Box<Series>>]>,
    /// Lookups of keys in memory that found one.
    pub(in crate::keystore) hits: AtomicU64,
    /// Lookups that had to read the file.
    pub(in crate::keystore) misses: AtomicU64,
    /// Opens of files through a mount, and those that were refused.
    pub(in crate::keystore) opens: [AtomicU64; 2],
}

/// The calls of one operation with one result.
struct Series {
    operation: &'static str,
    result: &'static str,
    /// Calls by duration; each bound counts those up to it and not up to the one before.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            series: (0..MOST_SERIES).map(|_| OnceLock::new()).collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            opens: [const { AtomicU64::new(0) }; 2],
        }
    }
}

impl Metrics {
    /// Counts a call, unless there are more kinds of calls than anybody has.
    pub(in crate::keystore) fn observe(
        &self,
        operation: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        let Some(series) = self.find(operation, result) else { return };
        let bucket = BOUNDS.iter().position(|(nanos, _)| took.as_nanos() <= u128::from(*nanos));
        if let Some(bucket) = series.buckets.get(bucket.unwrap_or(BOUNDS.len())) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        series.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Counts a lookup of a key in memory.
    pub(in crate::keystore) fn looked_up(&self, found: &Option<impl Sized>) {
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The slot of a series: where its hash points to, or the next that is free.
    fn find(&self, operation: &'static str, result: &'static str) -> Option<&Series> {
        let start = first_slot(operation, result);
        (start..start + MOST_SERIES).find_map(|at| {
            let slot = self.series.get(at % MOST_SERIES)?;
            let series = slot.get_or_init(|| Box::new(Series::new(operation, result)));
            (series.operation == operation && series.result == result).then_some(series.as_ref())
        })
    }

    /// The counters in Prometheus' text form.
    pub(in crate::keystore) fn print(&self, out: &mut String) {
        let mut series: Vec<_> =
            self.series.iter().filter_map(OnceLock::get).map(Box::as_ref).collect();
        series.sort_unstable_by_key(|series| (series.operation, series.result));
        head(out, "kmsfs_operations_total", "counter", "Operations of the KMS by result.");
        for one in &series {
            let _ = writeln!(out, "kmsfs_operations_total{{{}}} {}", one.labels(), one.calls());
        }
        let name = "kmsfs_operation_duration_seconds";
        head(out, name, "histogram", "Duration of operations of the KMS by result.");
        series.iter().for_each(|one| one.print(name, out));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "kmsfs_key_cache_lookups_total";
        head(out, name, "counter", "Lookups of keys in memory.");
        for (outcome, counter) in [("hit", &self.hits), ("miss", &self.misses)] {
            let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {}", count(counter));
        }
        let name = "kmsfs_file_opens_total";
        head(out, name, "counter", "Opens of files through a mount.");
        for (outcome, counter) in ["allowed", "refused"].iter().zip(&self.opens) {
            let _ = writeln!(out, "{name}{{outcome=\"{outcome}\"}} {}", count(counter));
        }
    }
}

impl Series {
    fn new(operation: &'static str, result: &'static str) -> Self {
        let buckets = [const { AtomicU64::new(0) }; BOUNDS.len() + 1];
        Self { operation, result, buckets, nanos: AtomicU64::new(0) }
    }

    fn calls(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    fn labels(&self) -> String {
        format!("operation=\"{}\",result=\"{}\"", self.operation, self.result)
    }

    fn print(&self, name: &str, out: &mut String) {
        let (labels, mut calls) = (self.labels(), 0);
        for (bucket, (_, bound)) in self.buckets.iter().zip(BOUNDS) {
            calls += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {calls}");
        }
        calls += self.buckets.last().map_or(0, |bucket| bucket.load(Ordering::Relaxed));
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {calls}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {:.9}", sum.as_secs_f64());
        let _ = writeln!(out, "{name}_count{{{labels}}} {calls}");
    }
}

/// The two lines in front of the samples of a metric.
pub(in crate::keystore) fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// FNV-1a over both names.
fn first_slot(operation: &str, result: &str) -> usize {
    let bytes = operation.bytes().chain([0]).chain(result.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash >> 32).unwrap_or(0) % MOST_SERIES
}

/// About sixty operations have some ten results each; most never happen.
const MOST_SERIES: usize = 2048;

/// Nanoseconds, and the same in seconds as it is printed.
const BOUNDS: [(u64, &str); 14] = [
    (1_000, "0.000001"),
    (5_000, "0.000005"),
    (10_000, "0.00001"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (5_000_000_000, "5"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_operation_result_and_duration() {
        let metrics = Metrics::default();
        for micros in [1, 2, 700, 9_000_000] {
            metrics.observe("Decrypt", "Success", Duration::from_micros(micros));
        }
        metrics.observe("Decrypt", "DisabledException", Duration::ZERO);
        metrics.looked_up(&Some(()));
        let mut text = String::new();
        metrics.print(&mut text);
        let labels = "operation=\"Decrypt\",result=\"Success\"";
        for line in [
            format!("kmsfs_operations_total{{{labels}}} 4"),
            format!("kmsfs_operation_duration_seconds_bucket{{{labels},le=\"0.000001\"}} 1"),
            format!("kmsfs_operation_duration_seconds_bucket{{{labels},le=\"0.001\"}} 3"),
            format!("kmsfs_operation_duration_seconds_bucket{{{labels},le=\"5\"}} 3"),
            format!("kmsfs_operation_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 4"),
            format!("kmsfs_operation_duration_seconds_sum{{{labels}}} 9.000703000"),
            format!("kmsfs_operation_duration_seconds_count{{{labels}}} 4"),
            "kmsfs_operations_total{operation=\"Decrypt\",result=\"DisabledException\"} 1".into(),
            "kmsfs_key_cache_lookups_total{outcome=\"hit\"} 1".into(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn bounds_are_printed_as_they_are() {
        for (nanos, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!(Duration::from_nanos(nanos), Duration::from_secs_f64(seconds));
        }
    }

    #[test]
    fn threads_that_meet_at_a_new_series_make_one() {
        let metrics = Metrics::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for operation in ["A", "B", "C"] {
                        metrics.observe(operation, "Success", Duration::ZERO);
                    }
                });
            }
        });
        let found: Vec<_> = metrics.series.iter().filter_map(OnceLock::get).collect();
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|series| series.calls() == 4));
    }
}
