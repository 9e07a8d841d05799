//! Exit codes: one table, for people and for scripts.
//!
//! `docs/REFERENCE.md` repeats it; a test here keeps the two equal.

use std::fmt;

use super::printable::{lines, printable};

/// How a command ended. The number is the process's exit code and never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::cli) enum Exit {
    /// Done.
    Ok = 0,
    /// Something failed that has no code of its own; the message says what.
    General = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The passphrase or key file opens no slot of the keystore.
    WrongSecret = 3,
    /// No secret was given and there is no terminal to ask at, or no access key for a KMS; or the file
    /// named for it cannot be read.
    NoSecret = 4,
    /// There is no keystore at that place.
    KeystoreMissing = 5,
    /// The keystore is damaged, edited by hand, locked by another process, or newer than this build.
    KeystoreUnusable = 6,
    /// The directory is not a vault.
    NotAVault = 7,
    /// The vault has a format that this build does not know.
    VaultFormat = 8,
    /// Another process has the vault mounted or is working on it.
    VaultInUse = 9,
    /// The mountpoint is missing, not a directory, not empty or already in use.
    Mountpoint = 10,
    /// `/dev/fuse` or `fusermount3` is missing or not usable.
    FuseMissing = 11,
    /// The key, alias or material is not in this keystore.
    KeyUnknown = 12,
    /// The key is there but its state forbids the operation.
    KeyUnusable = 13,
    /// Refused: what would be destroyed is still referred to, nobody confirmed it, the caller may
    /// not, or a vault is there already.
    Refused = 14,
    /// Damage was found (`fsck`, `keystore verify`, `audit verify`, `doctor`, or data that fails
    /// authentication).
    Damage = 15,
    /// No space left, or the place is read-only.
    NoSpace = 16,
    /// The mount is busy.
    Busy = 17,
    /// Nothing is mounted there.
    NotMounted = 18,
    /// The KMS at an endpoint does not answer.
    KmsUnreachable = 19,
    /// It is unmounted, but its session could not be ended: the next one takes it for a crash.
    NotEnded = 20,
}

/// The table as `docs/REFERENCE.md` prints it.
pub(in crate::cli) const TABLE: &[(Exit, &str)] = &[
    (Exit::Ok, "done"),
    (Exit::General, "failed; the message says why"),
    (Exit::Usage, "wrong command line"),
    (Exit::WrongSecret, "wrong passphrase or key file"),
    (
        Exit::NoSecret,
        "no secret or access key, and no terminal to ask at; or its file cannot be read",
    ),
    (Exit::KeystoreMissing, "keystore missing"),
    (Exit::KeystoreUnusable, "keystore damaged, edited by hand, locked, or newer than this build"),
    (Exit::NotAVault, "not a vault"),
    (Exit::VaultFormat, "vault of a format that this build does not know"),
    (Exit::VaultInUse, "vault in use by another process"),
    (Exit::Mountpoint, "mountpoint missing, not a directory, not empty, or in use"),
    (Exit::FuseMissing, "/dev/fuse or fusermount3 missing or not usable"),
    (Exit::KeyUnknown, "key, alias or material not in this keystore"),
    (Exit::KeyUnusable, "key disabled, pending deletion, or otherwise not usable"),
    (Exit::Refused, "refused: still needed, not confirmed, not permitted, or there already"),
    (Exit::Damage, "damage found, or an error by `doctor`"),
    (Exit::NoSpace, "no space left, or read-only"),
    (Exit::Busy, "the mount is busy"),
    (Exit::NotMounted, "nothing is mounted there"),
    (Exit::KmsUnreachable, "the KMS at an endpoint does not answer"),
    (Exit::NotEnded, "unmounted, but the session could not be ended: the next mount mends it"),
];

impl Exit {
    /// The number given to the operating system.
    pub(in crate::cli) fn code(self) -> u8 {
        self as u8
    }

    /// The meaning of a number that another kmsfs gave; `General` when it is not in the table.
    pub(in crate::cli) fn from_code(code: u8) -> Self {
        TABLE
            .iter()
            .map(|(exit, _)| *exit)
            .find(|exit| exit.code() == code)
            .unwrap_or(Self::General)
    }

    /// The meaning as one line.
    pub(in crate::cli) fn meaning(self) -> &'static str {
        TABLE.iter().find(|(exit, _)| *exit == self).map_or("", |(_, meaning)| meaning)
    }
}

/// A failed command: its exit code, what happened to which thing, and what to do about it.
#[derive(Debug)]
pub(in crate::cli) struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What failed and on which thing; lower case, one line.
    pub what: String,
    /// What the user can do, when there is something.
    pub advice: Option<String>,
}

impl CliError {
    /// A failure without advice.
    pub(in crate::cli) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { exit, what: what.into(), advice: None }
    }

    /// The same failure with a line that says what to do.
    #[must_use]
    pub(in crate::cli) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// An input/output failure on a named thing; full or read-only places get their own code.
    pub(in crate::cli) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let exit = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EROFS | libc::EDQUOT) => Exit::NoSpace,
            _ => Exit::General,
        };
        Self::new(exit, format!("{what}: {}", plain(error)))
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.what))?;
        match &self.advice {
            Some(advice) => write!(f, "\n  {}", lines(advice)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

/// The system's message in the house style: lower case and without the number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_each_has_a_meaning() {
        for (index, (exit, meaning)) in TABLE.iter().enumerate() {
            assert_eq!(usize::from(exit.code()), index);
            assert_eq!(exit.meaning(), *meaning);
        }
    }

    #[test]
    fn the_reference_holds_the_same_table() {
        let reference = include_str!("../../../docs/REFERENCE.md");
        for (exit, meaning) in TABLE {
            let row = format!("| {} | {meaning} |", exit.code());
            assert!(reference.contains(&row), "docs/REFERENCE.md lacks: {row}");
        }
    }

    #[test]
    fn a_full_disk_has_its_own_code() {
        let full = std::io::Error::from_raw_os_error(libc::ENOSPC);
        let error = CliError::io("/srv/vault", &full);
        assert_eq!(error.exit, Exit::NoSpace);
        assert_eq!(error.to_string(), "/srv/vault: no space left on device");
    }
}
