//! Where secrets lie: boxes that never move, in pages that a daemon keeps out of the swap.
//!
//! A page is locked for all that lies in it, and unlocked for all of it: so boxes are kept together,
//! and those that a secret has left are used again and never given back.

use std::sync::OnceLock;

use parking_lot::Mutex;
use zeroize::Zeroize;

/// Bytes of the largest secret, the seed of a P-521 key, and what fills a line.
pub(super) const ROOM: usize = 72;

/// Locks the memory that some bytes lie in; `false` if that is not allowed.
pub type LockPages = fn(&[u8]) -> bool;

static LOCK: OnceLock<LockPages> = OnceLock::new();
#[allow(clippy::vec_box, reason = "a box stays where it is when the vector grows")]
static FREE: Mutex<Vec<Box<[u8; ROOM]>>> = Mutex::new(Vec::new());

/// From now on secrets lie in pages that `lock` has locked, as long as it can.
pub fn lock_pages_with(lock: LockPages) {
    let _ = LOCK.set(lock);
}

/// Room for one secret, wiped when dropped.
pub(super) struct Room {
    /// There until the drop.
    bytes: Option<Box<[u8; ROOM]>>,
    locked: bool,
}

impl Room {
    /// Room of zeros.
    pub(super) fn zero() -> Self {
        match LOCK.get().and_then(|lock| locked(*lock)) {
            Some(bytes) => Self { bytes: Some(bytes), locked: true },
            None => Self { bytes: Some(Box::new([0; ROOM])), locked: false },
        }
    }

    pub(super) fn bytes(&self) -> &[u8; ROOM] {
        self.bytes.as_deref().expect("a secret has its room until it is dropped")
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8; ROOM] {
        self.bytes.as_deref_mut().expect("a secret has its room until it is dropped")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(mut bytes) = self.bytes.take() else { return };
        bytes.as_mut_slice().zeroize();
        if self.locked {
            FREE.lock().push(bytes);
        }
    }
}

fn locked(lock: LockPages) -> Option<Box<[u8; ROOM]>> {
    let mut free = FREE.lock();
    if free.is_empty() {
        // Many at once: what is allocated together lies together.
        let more: Vec<_> = (0..BATCH).map(|_| Box::new([0; ROOM])).collect();
        if more.iter().all(|room| lock(&room[..])) {
            free.extend(more);
        }
    }
    free.pop()
}

/// Two pages or three.
const BATCH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_that_was_left_is_zeros_and_used_again_only_if_it_is_locked() {
        let mut room =
            locked(|_| true).map(|bytes| Room { bytes: Some(bytes), locked: true }).unwrap();
        room.bytes_mut().fill(7);
        drop(room);
        let left = FREE.lock();
        assert!(!left.is_empty() && left.iter().all(|bytes| **bytes == [0; ROOM]));
        drop(left);
        FREE.lock().clear();
        assert!(locked(|_| false).is_none());
    }
}
