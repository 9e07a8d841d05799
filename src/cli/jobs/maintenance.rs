//! What a keystore has to do by date, while a daemon that has it open lives.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::keystore::{ClockTrust, Keystore};
use crate::threads::Threads;

/// What the keystore has to do by date while a daemon runs: rotations that are due, keys whose
/// waiting period is over, grants that have ended.
pub(in crate::cli) struct Maintenance {
    _threads: Threads,
}

impl Maintenance {
    /// Starts a thread that does them now and once an hour, until this is dropped. `also` is done
    /// after them.
    pub(in crate::cli) fn start(
        keystore: &Arc<Keystore>,
        also: impl Fn() + Send + 'static,
    ) -> Option<Self> {
        let (keystore, threads) = (Arc::clone(keystore), Threads::default());
        let started = threads.start_detached("maintenance", move |stop| {
            loop {
                by_date(&keystore);
                also();
                if stop.within(EVERY) {
                    return;
                }
            }
        });
        started.ok().map(|()| Self { _threads: threads })
    }
}

fn by_date(keystore: &Keystore) {
    let now = SystemTime::now();
    match keystore.run_due_rotations(now) {
        Ok(rotated) if rotated.is_empty() => {}
        Ok(rotated) => log::info!("{} keys were rotated by date", rotated.len()),
        Err(error) => log::warn!("rotation by date: {error}"),
    }
    if let Err(error) = keystore.expire_imported(now) {
        log::warn!("expiry of imported key material: {error}");
    }
    if let Err(error) = keystore.drop_expired_grants(now) {
        log::warn!("grants that ended: {error}");
    }
    match keystore.delete_expired(now, ClockTrust::Steps) {
        Ok(expired) if !expired.held.is_empty() => {
            log::warn!("{} keys wait for their deletion: {NOT_SEEN_TO_PASS}", expired.held.len());
        }
        Ok(_) => {}
        Err(error) => log::warn!("deletion by date: {error}"),
    }
}

/// Why something waits whose date has come.
pub(in crate::cli) const NOT_SEEN_TO_PASS: &str = "the clock jumped, or nothing checked it for more than two days; only time that was observed \
     counts";

const EVERY: Duration = Duration::from_secs(3600);
