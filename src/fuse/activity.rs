//! Whether requests come densely, for a thread beside them that wants to know it.
//!
//! Nobody waits for a clock while they do not: requests themselves notice that they have become dense,
//! and wake the thread, which then looks how long they stay so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// So many requests within [`WITHIN`] are dense: one every 0.6 ms. A single command is not, and neither
/// is what waits for a disk each time.
const DENSE: u32 = 16;
const WITHIN: Duration = Duration::from_millis(10);

/// How densely the kernel asks.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicU64,
    /// The thread looks at the number of requests by itself: they have nobody to wake.
    watched: AtomicBool,
    burst: Mutex<Burst>,
    changed: Condvar,
}

/// Requests since somebody began to count.
#[derive(Debug, Default)]
struct Burst {
    began: Option<Instant>,
    requests: u32,
    /// Nobody wants to be woken before.
    not_before: Option<Instant>,
    ended: bool,
}

impl Activity {
    /// Takes note of a request. Costs an addition, and while nobody watches a look at the clock.
    pub(super) fn note(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !self.watched.load(Ordering::Relaxed) {
            self.note_unwatched(Instant::now());
        }
    }

    fn note_unwatched(&self, now: Instant) {
        if self.burst.lock().add(now) {
            self.watched.store(true, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Waits until requests come densely. False if none will come any more.
    pub fn wait(&self) -> bool {
        let mut burst = self.burst.lock();
        self.changed
            .wait_while(&mut burst, |burst| !burst.ended && !self.watched.load(Ordering::Relaxed));
        !burst.ended
    }

    /// How many requests came since the last call.
    pub fn take(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }

    /// Watches no more: whoever waits is woken by the next burst, but not before this time.
    pub fn rest(&self, not_before: Option<Instant>) {
        let mut burst = self.burst.lock();
        *burst = Burst { not_before, ended: burst.ended, ..Burst::default() };
        self.watched.store(false, Ordering::Relaxed);
    }

    /// Wakes whoever waits, for the last time.
    pub fn end(&self) {
        self.burst.lock().ended = true;
        self.changed.notify_all();
    }
}

impl Burst {
    /// Counts a request; true if they are dense.
    fn add(&mut self, now: Instant) -> bool {
        if self.not_before.is_some_and(|then| now < then) {
            return false;
        }
        match self.began {
            Some(began) if now.saturating_duration_since(began) <= WITHIN => self.requests += 1,
            _ => (self.began, self.requests) = (Some(now), 1),
        }
        self.requests >= DENSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests at these distances: how many came until they were dense.
    fn until_dense(burst: &mut Burst, start: Instant, distance: Duration) -> Option<u32> {
        (1..=1000).find(|count| burst.add(start + distance * *count))
    }

    #[test]
    fn requests_are_dense_when_enough_come_in_a_short_time() {
        let start = Instant::now();
        let within = |distance| until_dense(&mut Burst::default(), start, distance);
        assert_eq!(within(Duration::from_micros(20)), Some(DENSE));
        assert_eq!(within(Duration::from_micros(600)), Some(DENSE));
        assert_eq!(within(Duration::from_millis(1)), None);
        assert_eq!(within(Duration::from_secs(1)), None);
    }

    #[test]
    fn a_burst_after_a_pause_counts_from_its_own_beginning() {
        let (start, mut burst) = (Instant::now(), Burst::default());
        for count in 1..DENSE {
            assert!(!burst.add(start + Duration::from_micros(count.into())));
        }
        let later = start + Duration::from_secs(3);
        assert_eq!(until_dense(&mut burst, later, Duration::from_micros(1)), Some(DENSE));
    }

    #[test]
    fn whoever_is_not_to_be_woken_is_not() {
        let start = Instant::now();
        let then = start + Duration::from_secs(10);
        let mut burst = Burst { not_before: Some(then), ..Burst::default() };
        assert_eq!(until_dense(&mut burst, start, Duration::from_millis(1)), None);
        assert_eq!(until_dense(&mut burst, then, Duration::ZERO), Some(DENSE));
    }

    #[test]
    fn who_waits_is_woken_by_a_burst_and_once_more_after_a_rest() {
        let activity = Activity::default();
        let burst = |from: u64| {
            for count in 0..from {
                activity.requests.fetch_add(1, Ordering::Relaxed);
                activity.note_unwatched(Instant::now() + Duration::from_nanos(count));
            }
        };
        for _ in 0..2 {
            std::thread::scope(|scope| {
                let waits = scope.spawn(|| activity.wait());
                while !waits.is_finished() {
                    burst(DENSE.into());
                }
                assert!(waits.join().unwrap());
            });
            assert!(activity.take() >= DENSE.into());
            assert_eq!(activity.take(), 0);
            activity.rest(None);
        }
        activity.end();
        assert!(!activity.wait());
        activity.rest(None);
        assert!(!activity.wait(), "an end is for good");
    }
}
