//! How often files were given setuid or setgid.

use std::sync::atomic::{AtomicU64, Ordering};

/// Setuid and setgid.
const SET_ID: u32 = 0o6000;

/// Counts how often some file was given setuid or setgid, so that an open file that was found without
/// them is not looked at again before the count changes.
#[derive(Debug)]
pub(in crate::volume) struct SetIdCounter(AtomicU64);

impl Default for SetIdCounter {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl SetIdCounter {
    /// The count until now, from 1.
    pub(in crate::volume) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Notes that a file gets this mode.
    pub(in crate::volume) fn note(&self, mode: u32) {
        if mode & SET_ID != 0 {
            self.0.fetch_add(1, Ordering::AcqRel);
        }
    }
}
