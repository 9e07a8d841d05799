//! The `kmsfs` command, also answering to `mount.kmsfs` and `mount.fuse.kmsfs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kmsfs::cli::main(std::env::args_os().collect())
}
