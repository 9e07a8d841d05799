//! Which signatures were seen already.
//!
//! A captured request must not work again. But clients sign with the second as the finest time:
//! two equal requests of one second have one signature, from as many connections and hosts as
//! share the access key, and both are meant. So a signature may be repeated for a few seconds
//! after it was first seen ([`REPEATS`]), which covers that second and the way of the request, and
//! is refused from then until its time has expired.
//!
//! Memory is bounded. When it is full the oldest seconds are forgotten, and from then on requests
//! signed in those seconds are refused as expired: the window gets shorter, it never gets holes.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::authorization::SKEW;
use super::{Claim, SignatureError};

/// How long equal requests may arrive after the first of them.
pub const REPEATS: Duration = Duration::from_secs(5);

/// The signatures of the last minutes. Several threads may use it.
#[derive(Debug)]
pub struct ReplayWindow {
    signatures: Mutex<Signatures>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Signatures {
    /// When each signature came first, by the time it was made at.
    by_time: BTreeMap<SystemTime, HashMap<[u8; 16], SystemTime>>,
    count: usize,
    /// What was signed up to here is not remembered any more.
    forgotten: Option<SystemTime>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl ReplayWindow {
    /// A window that remembers up to `capacity` signatures, of about 50 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self { signatures: Mutex::default(), capacity }
    }

    /// Admits a verified request, unless it is a replay.
    /// Errors: `Replayed`, `Invalid` if it was signed before what is remembered, `Throttled` if
    /// even the last seconds hold too many.
    pub fn admit(&self, claim: &Claim, now: SystemTime) -> Result<(), SignatureError> {
        self.admit_at(claim.signature(), claim.signed_at(), now)
    }

    fn admit_at(
        &self,
        signature: &[u8; 32],
        signed_at: SystemTime,
        now: SystemTime,
    ) -> Result<(), SignatureError> {
        let mut signatures = self.signatures.lock();
        signatures.expire(now);
        if signatures.forgotten.is_some_and(|forgotten| signed_at <= forgotten) {
            return Err(SignatureError::Invalid(
                "Signature expired: under this load only the last seconds are accepted.".to_owned(),
            ));
        }
        let [half, _] = signature.as_chunks::<16>().0 else {
            return Err(SignatureError::Mismatch);
        };
        let first = signatures.by_time.get(&signed_at).and_then(|second| second.get(half));
        if let Some(first) = first {
            // A clock that was moved back makes this zero.
            let since = now.duration_since(*first).unwrap_or_default();
            return if since <= REPEATS { Ok(()) } else { Err(SignatureError::Replayed) };
        }
        if signatures.count >= self.capacity && !signatures.forget_oldest(now) {
            return Err(SignatureError::Throttled);
        }
        signatures.by_time.entry(signed_at).or_default().insert(*half, now);
        signatures.count += 1;
        Ok(())
    }
}

impl Signatures {
    /// Drops what is refused by its time alone; after a clock was moved back, also the future.
    fn expire(&mut self, now: SystemTime) {
        while let Some(oldest) = self.by_time.first_entry()
            && *oldest.key() < now - SKEW
        {
            self.count -= oldest.remove().len();
        }
        while let Some(newest) = self.by_time.last_entry()
            && *newest.key() > now + SKEW
        {
            self.count -= newest.remove().len();
        }
        self.forgotten = self.forgotten.filter(|forgotten| *forgotten < now);
    }

    /// Makes room by forgetting one second, unless it is one of the last.
    fn forget_oldest(&mut self, now: SystemTime) -> bool {
        let Some(oldest) = self.by_time.first_entry() else { return false };
        if *oldest.key() + REPEATS >= now {
            return false;
        }
        self.forgotten = Some(*oldest.key());
        self.count -= oldest.remove().len();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn second(number: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000 + number)
    }

    fn signature(number: u8) -> [u8; 32] {
        [number; 32]
    }

    #[test]
    fn equal_requests_of_one_second_pass_and_a_late_one_does_not() {
        let window = ReplayWindow::default();
        assert_eq!(window.admit_at(&signature(1), second(0), second(0)), Ok(()));
        assert_eq!(window.admit_at(&signature(1), second(0), second(1)), Ok(()));
        assert_eq!(window.admit_at(&signature(1), second(0), second(5)), Ok(()));
        let late = window.admit_at(&signature(1), second(0), second(6));
        assert_eq!(late, Err(SignatureError::Replayed));
        let last = window.admit_at(&signature(1), second(0), second(300));
        assert_eq!(last, Err(SignatureError::Replayed));
    }

    #[test]
    fn a_request_from_the_future_is_remembered_as_long_as_it_is_valid() {
        let window = ReplayWindow::default();
        assert_eq!(window.admit_at(&signature(1), second(300), second(0)), Ok(()));
        let again = window.admit_at(&signature(1), second(300), second(600));
        assert_eq!(again, Err(SignatureError::Replayed));
    }

    #[test]
    fn what_has_expired_takes_no_room() {
        let window = ReplayWindow::new(1);
        assert_eq!(window.admit_at(&signature(1), second(0), second(0)), Ok(()));
        assert_eq!(window.admit_at(&signature(2), second(400), second(400)), Ok(()));
        assert_eq!(window.signatures.lock().count, 1);
    }

    #[test]
    fn a_full_window_gets_shorter_and_never_forgets_silently() {
        let window = ReplayWindow::new(2);
        assert_eq!(window.admit_at(&signature(1), second(0), second(0)), Ok(()));
        assert_eq!(window.admit_at(&signature(2), second(1), second(1)), Ok(()));
        let full = window.admit_at(&signature(3), second(2), second(2));
        assert_eq!(full, Err(SignatureError::Throttled));
        assert_eq!(window.admit_at(&signature(3), second(10), second(10)), Ok(()));
        for (number, at) in [(1, 0), (9, 0)] {
            let old = window.admit_at(&signature(number), second(at), second(10)).unwrap_err();
            assert!(matches!(old, SignatureError::Invalid(_)), "{old}");
        }
        let kept = window.admit_at(&signature(2), second(1), second(10));
        assert_eq!(kept, Err(SignatureError::Replayed));
    }

    #[test]
    fn a_clock_that_was_moved_back_locks_nobody_out() {
        let window = ReplayWindow::new(1);
        assert_eq!(window.admit_at(&signature(1), second(900), second(900)), Ok(()));
        assert_eq!(window.admit_at(&signature(2), second(950), second(950)), Ok(()));
        assert!(window.admit_at(&signature(3), second(900), second(960)).is_err());
        assert_eq!(window.admit_at(&signature(4), second(0), second(5)), Ok(()));
    }
}
