//! What a check found, and what it did about it.

use std::path::PathBuf;

use serde::Serialize;

/// Whether a check may change the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Only look.
    No,
    /// Repair header slots, descriptors and sizes from their other copies, and remove what a crash
    /// left of things that were never finished. Nothing that could be read is given up.
    Yes,
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The backing path, below the vault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// True if it is not wrong any more.
    pub repaired: bool,
    /// True if it is of no use and harms nobody: what a crash left of something unfinished.
    pub leftover: bool,
}

/// How far a check is, and at the end what it found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Files that were read.
    pub files: u64,
    /// Directories that were read.
    pub directories: u64,
    /// Plaintext bytes that were authenticated.
    pub bytes: u64,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Backing paths of files of which nothing was synced before a crash: they are empty, and that is
    /// no problem.
    pub emptied: Vec<PathBuf>,
    /// Sessions that ended in a crash whose traces are not mended yet: what is odd because of them
    /// is served, and no problem.
    pub pending: u64,
    /// Of these, sessions whose traces are not believed, because the vault was put back.
    pub withheld: u64,
    /// Pages that a crash tore, and that the page journal of the crashed session has: a recovery puts
    /// them back.
    pub journaled: u64,
    /// False if the check was stopped before its end.
    pub complete: bool,
}

impl CheckReport {
    /// True if everything could be read, or was repaired.
    pub fn is_clean(&self) -> bool {
        self.complete && self.problems.iter().all(|problem| problem.repaired || problem.leftover)
    }

    pub(in crate::volume) fn add(&mut self, path: PathBuf, what: impl ToString, repaired: bool) {
        self.problems.push(Problem { path, what: what.to_string(), repaired, leftover: false });
    }

    pub(in crate::volume) fn add_leftover(&mut self, path: PathBuf, repaired: bool) {
        let what = LEFT_OVER.to_owned();
        self.problems.push(Problem { path, what, repaired, leftover: true });
    }

    /// A directory that a crash left without a name, and with something in it.
    pub(in crate::volume) fn add_unnamed(&mut self, path: PathBuf, shown: bool) {
        let what = if shown { SHOWN } else { UNNAMED }.to_owned();
        self.problems.push(Problem { path, what, repaired: shown, leftover: false });
    }
}

const UNNAMED: &str =
    "a crash left this directory without a name, and something is in it: --repair makes it visible";
const SHOWN: &str =
    "a crash left this directory without a name: a mount shows it as a foreign one from now on";
const LEFT_OVER: &str = "left over from something that was never finished";
