//! Paths: of the keystore when nobody says, and absolute forms of others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::process;
use crate::cli::args::Global;
use crate::cli::report::exit::{CliError, Exit};

/// The keystore to use: the option, else the default path.
pub(in crate::cli) fn keystore(global: &Global) -> Result<PathBuf, CliError> {
    match &global.keystore {
        Some(path) => absolute(path),
        None if process::is_root() => Ok(PathBuf::from("/var/lib/kmsfs/keystore.db")),
        None => user_keystore(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
            .ok_or_else(|| {
                CliError::new(Exit::Usage, "no place for the keystore: HOME is not set")
                    .advise("name it with --keystore FILE")
            }),
    }
}

/// An absolute path that does not have to exist; symbolic links are left alone.
pub(in crate::cli) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|error| CliError::io(path.display(), &error))
}

/// The real path of something that exists; otherwise the real path of its parent and its name.
pub(in crate::cli) fn real(path: &Path) -> Result<PathBuf, CliError> {
    if let Ok(found) = path.canonicalize() {
        return Ok(found);
    }
    let full = absolute(path)?;
    match (full.parent().and_then(|parent| parent.canonicalize().ok()), full.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.join(name)),
        _ => Ok(full),
    }
}

fn user_keystore(data_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let data = data_home
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| home.map(|home| Path::new(&home).join(".local/share")))
        .filter(|path| path.is_absolute())?;
    Some(data.join("kmsfs/keystore.db"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_wins_over_home() {
        let found = user_keystore(Some("/data".into()), Some("/home/ann".into()));
        assert_eq!(found, Some(PathBuf::from("/data/kmsfs/keystore.db")));
    }

    #[test]
    fn a_relative_data_directory_is_ignored_as_xdg_says() {
        let found = user_keystore(Some("data".into()), Some("/home/ann".into()));
        assert_eq!(found, Some(PathBuf::from("/home/ann/.local/share/kmsfs/keystore.db")));
    }

    #[test]
    fn without_home_there_is_no_default() {
        assert_eq!(user_keystore(None, None), None);
    }
}
