//! The file system exerciser: random operations on one file, every read compared with what the
//! file must hold.

use std::fs;
use std::process::Command;

use crate::harness::{Vault, tool};
use crate::random::seed;

/// Everything at once, in sizes that cross pages and groups of pages.
const ALL_OPERATIONS: &str = "
flen = 786432
[opsize]
min = 1
max = 32768
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 3
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 1
punch_hole = 1
sendfile = 2
posix_fadvise = 1
copy_file_range = 3
";

/// Small operations near each other, where page edges and the two halves of a block meet.
const SMALL_OPERATIONS: &str = "
flen = 20000
[opsize]
min = 1
max = 5000
[weights]
close_open = 2
mapread = 5
mapwrite = 5
read = 10
write = 10
truncate = 5
fsync = 0.1
punch_hole = 1
posix_fallocate = 1
copy_file_range = 3
";

#[test]
fn fsx_100000_operations_of_every_kind() {
    exercise("fsx-all", ALL_OPERATIONS, 100_000);
}

#[test]
fn fsx_50000_small_operations() {
    exercise("fsx-small", SMALL_OPERATIONS, 50_000);
}

fn exercise(name: &str, config: &str, operations: u32) {
    let vault = Vault::new(name);
    let mount = vault.mount();
    let settings = vault.outside("fsx.toml");
    fs::write(&settings, config).unwrap();
    let seed = seed(name);
    let output = Command::new("timeout")
        .args(["-k", "10", "600"])
        .arg(tool("fsx"))
        .args(["-N", &operations.to_string(), "-S", &seed.to_string()])
        .arg("-f")
        .arg(&settings)
        .arg("-P")
        .arg(vault.outside_dir("artifacts"))
        .arg(mount.path("file"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "fsx with seed {seed} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{name}: {operations} operations, seed {seed}");
}
