//! Memory for ciphertext on its way in or out.

use std::cell::RefCell;

use crate::envelope::layout::{PAGE_LEN, Page};

thread_local! {
    /// Plaintext is encrypted on its way into it, or at once in it, so it is never wiped.
    static SCRATCH: RefCell<Vec<Page>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on `count` pages for ciphertext, with arbitrary contents. Calls must not be nested.
pub(in crate::volume::content) fn with_pages<T>(
    count: usize,
    work: impl FnOnce(&mut [Page]) -> T,
) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < count {
            scratch.resize(count, [0; PAGE_LEN]);
        }
        work(&mut scratch[..count])
    })
}
