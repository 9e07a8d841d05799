//! What a command believes of a vault's own records, and where this machine remembers vaults.

use std::path::{Path, PathBuf};

use clap::Args;

use super::process;
use crate::volume::Options;

/// Options of commands that open a vault to change it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub(super) struct TrustArgs {
    /// The vault was put back on purpose: believe what its own records excuse after a crash
    ///
    /// Needed once, and only when a mount says so: the vault is older than what the keystore
    /// remembers of it, or a copy that went its own way, and some files were being written when it
    /// was copied. Without it such files give an error where they are half written. Or another vault
    /// is expected at this path; or the backup is from before the volume was brought up to date.
    #[arg(long)]
    pub restored: bool,
    /// Change the vault even if neither the keystore nor a file of this machine can remember it
    #[arg(long)]
    pub unanchored: bool,
}

impl TrustArgs {
    /// The same for a volume.
    pub(super) fn options(self) -> Options {
        Options { restored: self.restored, unanchored: self.unanchored, ..options() }
    }
}

/// How a volume is opened unless a command says more.
pub(super) fn options() -> Options {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let anchors = if process::is_root() {
        Some(PathBuf::from("/var/lib/kmsfs"))
    } else {
        user_state(state, home.as_deref())
    };
    let anchors = anchors.map(|dir| dir.join("anchors"));
    // A command serves nobody but its user. A mount says itself whom it serves.
    Options { anchors, open_vault: true, ..Options::default() }
}

fn user_state(state: Option<PathBuf>, home: Option<&Path>) -> Option<PathBuf> {
    let state = state.filter(|path| path.is_absolute());
    let state = state.or_else(|| home.map(|home| home.join(".local/state")));
    Some(state.filter(|path| path.is_absolute())?.join("kmsfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_wins_over_home() {
        let home = Path::new("/home/ann");
        assert_eq!(user_state(Some("/s".into()), Some(home)), Some("/s/kmsfs".into()));
        let usual = Some(PathBuf::from("/home/ann/.local/state/kmsfs"));
        assert_eq!(user_state(None, Some(home)), usual);
        assert_eq!(user_state(Some("s".into()), Some(home)), usual);
        assert_eq!(user_state(None, None), None);
    }
}
