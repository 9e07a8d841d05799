//! The `kmsfs` command, also answering to `mount.kmsfs` and `mount.fuse.kmsfs`.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Whatever is given back to the heap is wiped first: passphrases and contents pass through buffers
/// of libraries that do not wipe them, and through vectors that grow.
#[global_allocator]
static HEAP: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    kmsfs::cli::main(std::env::args_os().collect())
}
