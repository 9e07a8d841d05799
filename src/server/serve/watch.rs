//! Noticing what other processes change in the keystores, and when one cannot be read any more.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::keystores::{Keystores, Served};
use crate::threads::Threads;

/// A thread that looks at the keystores many times a second, so that a key or an access key that
/// is disabled elsewhere is refused here at once. Ends when it is dropped.
#[derive(Debug)]
pub(in crate::server) struct KeystoreWatch {
    _threads: Threads,
}

impl KeystoreWatch {
    pub(in crate::server) fn start(keystores: &Arc<Keystores>) -> io::Result<Self> {
        let (keystores, threads) = (Arc::clone(keystores), Threads::default());
        threads.start_detached("kms-watch", move |stop| {
            let mut silent = Silent::default();
            while !stop.within(EVERY) {
                silent.look(&keystores, Instant::now());
            }
        })?;
        Ok(Self { _threads: threads })
    }
}

/// The keystores that cannot be read, by region, and since when.
///
/// Somebody who wants to revoke a key may have no other way than to take the keystore away: after
/// a grace its requests are refused until it is back.
#[derive(Debug, Default)]
struct Silent(HashMap<Option<String>, Instant>);

impl Silent {
    fn look(&mut self, keystores: &Keystores, now: Instant) {
        for (region, served) in keystores.served() {
            let read = served.keystore.check_path().and_then(|()| served.keystore.poll_changes());
            match read {
                Ok(_) => self.heard(region, served),
                Err(error) => self.unheard(region, served, &error.to_string(), now),
            }
        }
    }

    fn heard(&mut self, region: Option<&str>, served: &Served) {
        if self.0.remove(&region.map(str::to_owned)).is_some() {
            log::warn!("{} can be read again", named(region));
            served.set_lost(false);
        }
    }

    fn unheard(&mut self, region: Option<&str>, served: &Served, why: &str, now: Instant) {
        let since = *self.0.entry(region.map(str::to_owned)).or_insert_with(|| {
            let (which, grace) = (named(region), GRACE.as_secs());
            log::error!(
                "{which} cannot be read: {why}; put it back, or in {grace} s its requests are refused"
            );
            now
        });
        if now.duration_since(since) >= GRACE {
            served.set_lost(true);
        }
    }
}

fn named(region: Option<&str>) -> String {
    region.map_or("the keystore".into(), |region| format!("the keystore of region {region}"))
}

const EVERY: Duration = Duration::from_millis(100);
/// As a mount has it unless it is told otherwise.
const GRACE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::keystore::{Keystore, Unlock, create_key_file};

    #[test]
    fn a_keystore_that_is_taken_away_answers_for_a_grace_and_again_when_it_is_back() {
        let dir = std::env::temp_dir().join(format!("kmsfs-watch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (path, aside) = (dir.join("keystore.db"), dir.join("aside.db"));
        create_key_file(&dir.join("key")).unwrap();
        let unlock = Unlock::KeyFile(dir.join("key"));
        let keystores =
            Keystores::new(Keystore::create(&path, &unlock, SystemTime::now()).unwrap());
        let (mut silent, began) = (Silent::default(), Instant::now());
        silent.look(&keystores, began);
        std::fs::rename(&path, &aside).unwrap();
        silent.look(&keystores, began);
        silent.look(&keystores, began + GRACE - EVERY);
        assert!(keystores.region(None).is_ok());
        silent.look(&keystores, began + GRACE);
        assert_eq!(keystores.region(None).unwrap_err().name(), "KMSInternalException");
        std::fs::rename(&aside, &path).unwrap();
        silent.look(&keystores, began + GRACE);
        assert!(keystores.region(None).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// Who took the keystore with the access keys away had not revoked them in other regions.
    #[test]
    fn regression_without_the_keystore_of_the_account_no_region_answers() {
        let dir = std::env::temp_dir().join(format!("kmsfs-watch-first-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        create_key_file(&dir.join("key")).unwrap();
        let unlock = Unlock::KeyFile(dir.join("key"));
        let make =
            |name: &str| Keystore::create(&dir.join(name), &unlock, SystemTime::now()).unwrap();
        let mut keystores = Keystores::new(make("first.db"));
        keystores.add_region("eu-west-1", make("second.db"));
        let (mut silent, began) = (Silent::default(), Instant::now());
        std::fs::rename(dir.join("first.db"), dir.join("aside.db")).unwrap();
        silent.look(&keystores, began);
        assert!(keystores.region(Some("eu-west-1")).is_ok());
        silent.look(&keystores, began + GRACE);
        assert!(keystores.region(Some("eu-west-1")).is_err());
        std::fs::rename(dir.join("aside.db"), dir.join("first.db")).unwrap();
        silent.look(&keystores, began + GRACE);
        assert!(keystores.region(Some("eu-west-1")).is_ok());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
