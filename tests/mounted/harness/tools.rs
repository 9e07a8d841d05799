//! Shells and programs that tests run, and what they leave.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) use crate::programs::program;

/// Longest time one script may take, in seconds.
const SCRIPT_LIMIT: &str = "600";

/// Where a suite installed by `tests/install-tools.sh` lies: the tools directory beside cargo's
/// scratch directory, or `PATH`.
pub(crate) fn tool(name: &str) -> PathBuf {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/bin").join(name);
    if installed.exists() { installed } else { program(name) }
}

/// A program of the Python environment that `tests/install-tools.sh` makes, or of `PATH`.
pub(crate) fn python(name: &str) -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../tools/venv/bin").join(name);
    if environment.exists() { environment } else { program(name) }
}

/// Runs bash scripts in one directory, with a quiet and repeatable environment.
pub(crate) struct Shell {
    dir: PathBuf,
    vars: Vec<(String, PathBuf)>,
}

impl Shell {
    /// A shell whose scripts start in `dir`.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), vars: Vec::new() }
    }

    /// Sets a variable for the scripts.
    pub(crate) fn var(mut self, name: &str, value: impl Into<PathBuf>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    /// Runs a script, which must succeed, and returns what it printed.
    pub(crate) fn run(&self, script: &str) -> String {
        checked(script, self.output(script))
    }

    /// Runs a script and returns how it ended.
    pub(crate) fn output(&self, script: &str) -> Output {
        Command::new("timeout")
            .args(["-k", "10", SCRIPT_LIMIT, "bash", "-euo", "pipefail", "-c", script])
            .current_dir(&self.dir)
            .envs(self.vars.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_AUTHOR_NAME", "Test")
            .env("GIT_AUTHOR_EMAIL", "test@localhost")
            .env("GIT_COMMITTER_NAME", "Test")
            .env("GIT_COMMITTER_EMAIL", "test@localhost")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// The output of a command that must have succeeded.
pub(crate) fn checked(what: &str, output: Output) -> String {
    assert!(
        output.status.success(),
        "failed with {}:\n{what}\n--- output\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything a user can see of a tree: kinds, modes, owners, times, links, contents, ACLs and
/// `user` attributes. Two trees are equal when their snapshots are.
pub(crate) fn snapshot(dir: &Path) -> String {
    for needed in ["getfacl", "getfattr"] {
        program(needed);
    }
    Shell::new(dir).run(
        r"find . ! -type d -printf '%P %y %m %U %G %s %T@ %n %l\n' | sort
          find . -type d -printf '%P %y %m %U %G %T@\n' | sort
          find . -type f -print0 | sort -z | xargs -0 -r sha256sum
          find . ! -type l -print0 | sort -z | xargs -0 -r getfacl -n -p 2>&1
          find . -print0 | sort -z | xargs -0 -r getfattr -h -d -m '^user\.' -e hex 2>&1",
    )
}

/// Asserts that two snapshots are equal, and shows only the lines that are not.
pub(crate) fn assert_same(one: &str, other: &str, what: &str) {
    let missing = |from: &str, other: &str| {
        let known: HashSet<&str> = other.lines().collect();
        from.lines().filter(|line| !known.contains(line)).take(10).collect::<Vec<_>>().join("\n  ")
    };
    assert!(
        one == other,
        "{what}: the trees differ; here\n  {}\nand there\n  {}",
        missing(one, other),
        missing(other, one)
    );
}
