//! When keys rotate by themselves.

use serde::{Deserialize, Serialize};

use crate::keystore::error::KeystoreError;
use crate::keystore::model::time::UnixTime;

/// When a key rotates by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::keystore) struct Schedule {
    pub(in crate::keystore) period_days: u16,
    pub(in crate::keystore) next: UnixTime,
}

impl Schedule {
    /// The same period, counted from `now`.
    pub(in crate::keystore) fn counted_from(self, now: UnixTime) -> Self {
        Self { next: now.plus_days(self.period_days), ..self }
    }

    /// Is the next date further away than a period? A clock that was wrong for a while has put it there.
    pub(in crate::keystore) fn is_stray(self, now: UnixTime) -> bool {
        self.next > now.plus_days(self.period_days)
    }

    /// Errors: `Validation` outside 90 to 2560 days.
    pub(in crate::keystore) fn starting(
        period_days: u16,
        now: UnixTime,
    ) -> Result<Self, KeystoreError> {
        if (90..=2560).contains(&period_days) {
            Ok(Self { period_days, next: now.plus_days(period_days) })
        } else {
            let problem = format!("a rotation period has 90 to 2560 days, not {period_days}");
            Err(KeystoreError::Validation(problem))
        }
    }
}
