//! Programs that tests run, and what to say when one is missing.

use std::path::PathBuf;

/// Finds a program in `PATH`; fails the test with the command that installs it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin".into(), "/sbin".into()]);
    places.into_iter().map(|dir| dir.join(name)).find(|file| file.exists()).unwrap_or_else(|| {
        panic!("`{name}` is not installed, and this test needs it: run tests/install-tools.sh")
    })
}
