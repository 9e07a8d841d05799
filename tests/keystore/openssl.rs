//! The `openssl` program as the other side: keys it makes, and what it says of ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fixture::TempDir;

/// Runs openssl in a directory of its own; input files are written there first.
pub(crate) struct OpenSsl(TempDir);

impl OpenSsl {
    pub(crate) fn new() -> Self {
        Self(TempDir::new())
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> &Self {
        fs::write(self.at(name), bytes).unwrap();
        self
    }

    pub(crate) fn take(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    /// The arguments are split at spaces.
    pub(crate) fn run(&self, arguments: &str) -> &Self {
        let output = self.command(arguments).output().expect("tests/install-tools.sh installs it");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
        self
    }

    /// Runs and tells whether openssl was content.
    pub(crate) fn agrees(&self, arguments: &str) -> bool {
        self.command(arguments).output().unwrap().status.success()
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(self.dir());
        command
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
