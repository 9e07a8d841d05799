//! SoftHSM2 with a directory and a configuration of its own: a token that can be pulled out.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user's PIN of every token here.
pub(crate) const PIN: &str = "4711";

/// SoftHSM's module, where Debian has it.
pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The directory of a SoftHSM with tokens.
pub(crate) struct SoftHsm {
    dir: PathBuf,
}

impl SoftHsm {
    /// Makes `dir` and a token in it.
    pub(crate) fn new(dir: &Path, label: &str) -> Self {
        fs::create_dir_all(dir.join("tokens")).unwrap();
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            dir.join("tokens").display()
        );
        fs::write(dir.join("softhsm2.conf"), text).unwrap();
        let hsm = Self { dir: dir.to_owned() };
        hsm.init(label);
        hsm
    }

    /// The directory of a SoftHSM that another process made.
    pub(crate) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes a further token.
    pub(crate) fn init(&self, label: &str) {
        let args = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "0815"];
        let made = Command::new("softhsm2-util")
            .args(args)
            .env("SOFTHSM2_CONF", self.conf())
            .output()
            .expect("softhsm2-util is there: tests/install-tools.sh installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// What the environment variable `SOFTHSM2_CONF` of its users must hold.
    pub(crate) fn conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    /// Takes all tokens away.
    pub(crate) fn pull_out(&self) {
        fs::rename(self.dir.join("tokens"), self.dir.join("drawer")).unwrap();
        fs::create_dir(self.dir.join("tokens")).unwrap();
    }

    /// Puts them back.
    pub(crate) fn put_in(&self) {
        fs::remove_dir_all(self.dir.join("tokens")).unwrap();
        fs::rename(self.dir.join("drawer"), self.dir.join("tokens")).unwrap();
    }
}
