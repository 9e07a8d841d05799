//! How much memory something asks for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(at, layout, size) }
    }
}

fn count(bytes: usize) {
    let _ = ASKED.try_with(|asked| asked.set(asked.get().saturating_add(bytes)));
}

#[global_allocator]
static MEMORY: Counting = Counting;

/// Runs `parse`, which must not ask for more than `most` bytes of memory in all its requests
/// together: whoever writes to the vault says how long things are.
pub fn within<T>(most: usize, parse: impl FnOnce() -> T) -> T {
    let before = ASKED.get();
    let parsed = parse();
    let asked = ASKED.get().wrapping_sub(before);
    assert!(asked <= most, "{asked} bytes were asked for, {most} would do");
    parsed
}
