//! What the kernel sent, wiped where it lies.
//!
//! fuser reads every request of a thread into one buffer for the life of the mount, and lends it out
//! read-only. Contents that were written would stay there until another request is as long: long
//! after their key was disabled.

use std::hint::black_box;
use std::ptr;

/// Runs `work` on bytes of a request, and wipes them in fuser's buffer.
///
/// Only for what a method of `fuser::Filesystem` was given: that is the buffer into which the same
/// thread reads the next request, and nobody looks into it in between.
pub(super) fn wiping<T>(received: &[u8], work: impl FnOnce(&[u8]) -> T) -> T {
    let result = work(received);
    wipe(received.as_ptr().expose_provenance(), received.len());
    result
}

/// Its own function, by number: the compiler takes what is behind a shared reference to stay as it
/// is, and must not see that it does not.
#[inline(never)]
#[allow(unsafe_code, reason = "fuser lends its buffer read-only and never wipes it")]
fn wipe(address: usize, length: usize) {
    let start = ptr::with_exposed_provenance_mut::<u8>(black_box(address));
    // SAFETY: the bytes lie in a vector of fuser's that lives as long as its thread, which is this
    // one, and whose address was given to read(2). The thread reads them no more: the reply is out,
    // the request is dropped unread after this method, and the buffer is written over by the next
    // read. The shared reference of the caller is still live, but nothing is read through it.
    unsafe { ptr::write_bytes(start, 0, length) };
    black_box(start);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_worked_on_is_zeros_and_its_neighbours_stay() {
        let mut buffer = vec![7; 100];
        let (start, length) = (buffer.as_mut_ptr().expose_provenance() + 10, 50);
        assert_eq!(wiping(&buffer[10..60], <[u8]>::len), length);
        assert!(start > 0);
        assert!(black_box(&buffer)[10..60].iter().all(|byte| *byte == 0));
        assert!(buffer[..10].iter().chain(&buffer[60..]).all(|byte| *byte == 7));
    }
}
