//! Keeps processors awake while requests come densely (`-o keep-awake`).
//!
//! A request crosses two sleeps, the daemon's and the caller's. Where a processor takes long to wake, as
//! in a virtual machine, they cost more than the work. The kernel forbids sleep while somebody asks it to
//! through a device, which is opened before the daemon is confined. It then is told of the beginning and
//! the end of a busy time, never of a request, and while requests are few nothing here runs at all.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cli::args::options::KeepAwake;
use crate::cli::env::processors::{self, Latency, Power};
use crate::fuse::Activity;
use crate::threads::{Stop, Threads};

/// How often to look whether requests still come.
const LOOK: Duration = Duration::from_millis(50);
/// Fewer than these between two looks are few: what they wait for is something else than processors.
const FEW: u64 = 16;
/// How long it is believed that the machine is, or is not, on battery.
const BELIEVED: Duration = Duration::from_secs(10);

/// What a mount does about processors that sleep.
#[derive(Debug)]
pub(in crate::cli) struct Awake {
    means: Result<Means, Obstacle>,
    activity: Arc<Activity>,
    now: AtomicBool,
    times: AtomicU64,
}

/// What it takes.
#[derive(Debug)]
struct Means {
    device: Latency,
    /// None if a battery may be emptied for it.
    power: Option<Power>,
}

/// Why nothing is done.
#[derive(Debug)]
pub(in crate::cli) enum Obstacle {
    /// Not asked for.
    Off,
    /// The kernel would take the wish, and nothing would come of it.
    NoDriver,
    /// The device cannot be opened.
    Device(io::Error),
}

/// The thread, until this is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Keeping {
    awake: Arc<Awake>,
    _threads: Threads,
}

/// When processors are kept awake: told what happens and when, and asked what to do.
#[derive(Debug, Default)]
struct Watch {
    /// When it was last seen whether the machine is on battery, and what was seen.
    battery: Option<(Instant, bool)>,
}

impl Awake {
    /// Opens what is needed: a confined daemon could not.
    pub(in crate::cli) fn prepare(asked: KeepAwake) -> Arc<Self> {
        let means = Means::find(asked);
        match (&means, asked) {
            (Err(obstacle @ Obstacle::Device(_)), KeepAwake::On) => {
                log::warn!("processors are not kept awake: {obstacle}");
            }
            (Err(obstacle), _) => log::debug!("processors are not kept awake: {obstacle}"),
            (Ok(_), _) => {}
        }
        let (activity, now, times) = (Arc::default(), AtomicBool::default(), AtomicU64::default());
        Arc::new(Self { means, activity, now, times })
    }

    /// What has to hear of requests.
    pub(in crate::cli) fn activity(&self) -> Option<Arc<Activity>> {
        self.means.is_ok().then(|| Arc::clone(&self.activity))
    }

    /// Starts the thread, if there is something to do. Without one a mount works, only slower.
    pub(in crate::cli) fn start(self: &Arc<Self>) -> Option<Keeping> {
        if self.means.is_err() {
            return None;
        }
        let (awake, mut threads) = (Arc::clone(self), Threads::default());
        let started = threads.start("awake", move |stop| awake.keep(stop));
        if let Err(error) = started {
            log::warn!("processors are not kept awake: {error}");
            return None;
        }
        Some(Keeping { awake: Arc::clone(self), _threads: threads })
    }

    /// What `status` says of it.
    pub(in crate::cli) fn state(&self) -> String {
        match &self.means {
            Err(obstacle) => format!("no: {obstacle}"),
            Ok(_) if self.now.load(Ordering::Relaxed) => "now".to_owned(),
            Ok(_) => WHEN.to_owned(),
        }
    }

    /// How many busy times there were.
    pub(in crate::cli) fn times(&self) -> u64 {
        self.times.load(Ordering::Relaxed)
    }

    fn keep(&self, stop: &Stop) {
        let Ok(means) = &self.means else { return };
        let mut watch = Watch::default();
        while self.activity.wait() {
            let not_before = watch.not_before(Instant::now(), || means.is_on_battery());
            if not_before.is_none()
                && let Err(error) = self.through_a_busy_time(means, &mut watch, stop)
            {
                log::warn!("processors are not kept awake: {error}");
                return;
            }
            self.activity.rest(not_before);
        }
    }

    fn through_a_busy_time(&self, means: &Means, watch: &mut Watch, stop: &Stop) -> io::Result<()> {
        means.device.forbid_sleep()?;
        self.times.fetch_add(1, Ordering::Relaxed);
        self.now.store(true, Ordering::Relaxed);
        self.activity.take();
        while !stop.within(LOOK)
            && watch.goes_on(self.activity.take(), Instant::now(), || means.is_on_battery())
        {
        }
        self.now.store(false, Ordering::Relaxed);
        means.device.allow_sleep()
    }
}

impl Means {
    fn find(asked: KeepAwake) -> Result<Self, Obstacle> {
        let power = match asked {
            KeepAwake::Off => return Err(Obstacle::Off),
            KeepAwake::Auto if processors::idle_driver().is_none() => {
                return Err(Obstacle::NoDriver);
            }
            KeepAwake::Auto => Some(Power::of_this_machine()),
            KeepAwake::On => None,
        };
        let device = Latency::open().map_err(Obstacle::Device)?;
        Ok(Self { device, power })
    }

    fn is_on_battery(&self) -> bool {
        self.power.as_ref().is_some_and(Power::is_on_battery)
    }
}

/// What a mount with the usual options would do on this machine.
pub(in crate::cli) fn expected() -> Result<&'static str, Obstacle> {
    let means = Means::find(KeepAwake::Auto)?;
    Ok(if means.is_on_battery() { "not on battery" } else { WHEN })
}

const WHEN: &str = "when requests come densely";

impl Watch {
    /// Requests have become dense: until when nothing is to be done about it, if nothing is.
    fn not_before(&mut self, now: Instant, battery: impl FnOnce() -> bool) -> Option<Instant> {
        self.is_on_battery(now, battery).then(|| now + BELIEVED)
    }

    /// True if there are still enough requests, of which so many came since the last look.
    fn goes_on(&mut self, requests: u64, now: Instant, battery: impl FnOnce() -> bool) -> bool {
        requests >= FEW && !self.is_on_battery(now, battery)
    }

    fn is_on_battery(&mut self, now: Instant, battery: impl FnOnce() -> bool) -> bool {
        match self.battery {
            Some((seen, is)) if now.saturating_duration_since(seen) < BELIEVED => is,
            _ => {
                let is = battery();
                self.battery = Some((now, is));
                is
            }
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.awake.activity.end();
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => write!(f, "keep-awake=off"),
            Self::NoDriver => write!(f, "no cpuidle driver puts processors to sleep here"),
            Self::Device(error) => write!(f, "{}: {error}", processors::DEVICE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_busy_time_lasts_as_long_as_requests_come() {
        let (mut watch, now) = (Watch::default(), Instant::now());
        assert_eq!(watch.not_before(now, || false), None);
        for look in 1..100 {
            assert!(watch.goes_on(FEW, now + LOOK * look, || false));
        }
        assert!(!watch.goes_on(FEW - 1, now + LOOK * 100, || false));
        assert!(!watch.goes_on(0, now + LOOK * 101, || false));
    }

    #[test]
    fn a_battery_ends_a_busy_time_and_is_looked_at_from_time_to_time() {
        let (mut watch, start) = (Watch::default(), Instant::now());
        let unasked = || panic!("it was asked a moment ago");
        assert_eq!(watch.not_before(start, || false), None);
        assert!(watch.goes_on(1000, start + SECOND, unasked));
        assert!(watch.goes_on(1000, start + SECOND * 9, unasked));
        let unplugged = start + BELIEVED;
        assert!(!watch.goes_on(1000, unplugged, || true));
        assert_eq!(
            watch.not_before(unplugged + SECOND, unasked),
            Some(unplugged + SECOND + BELIEVED)
        );
        let again = unplugged + BELIEVED;
        assert_eq!(watch.not_before(again, || true), Some(again + BELIEVED));
        assert_eq!(watch.not_before(again + BELIEVED, || false), None);
    }

    #[test]
    fn what_is_not_asked_for_is_not_done() {
        let awake = Awake::prepare(KeepAwake::Off);
        assert!(awake.activity().is_none() && awake.start().is_none());
        assert_eq!((awake.state().as_str(), awake.times()), ("no: keep-awake=off", 0));
    }
}
