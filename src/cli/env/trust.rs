//! How volumes are opened, and where this machine remembers vaults.

use std::path::{Path, PathBuf};

use super::process;
use crate::cli::args::trust::TrustArgs;
use crate::volume::Options;

impl TrustArgs {
    /// The same for a volume.
    pub(in crate::cli) fn options(self) -> Options {
        Options { restored: self.restored, unanchored: self.unanchored, ..options() }
    }
}

/// How a volume is opened unless a command says more.
pub(in crate::cli) fn options() -> Options {
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
