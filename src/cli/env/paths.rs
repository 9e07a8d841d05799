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

/// The real path of something that exists; otherwise that of the last directory on its way that does,
/// and the rest.
pub(in crate::cli) fn real(path: &Path) -> Result<PathBuf, CliError> {
    let full = absolute(path)?;
    let found = full.ancestors().find_map(|above| {
        let rest = full.strip_prefix(above).ok()?;
        let real = above.canonicalize().ok()?;
        // Joined with nothing, a path would end in a slash.
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    });
    Ok(found.unwrap_or(full))
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

    /// A link on the way to what is not there yet was not seen: that led into a vault unnoticed.
    #[test]
    fn regression_a_link_above_what_is_missing_is_followed() {
        let dir = std::env::temp_dir().canonicalize().unwrap();
        let dir = dir.join(format!("kmsfs-paths-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("there")).unwrap();
        std::os::unix::fs::symlink("there", dir.join("link")).unwrap();
        for (named, expected) in [
            ("link", "there"),
            ("link/file", "there/file"),
            ("link/missing/file", "there/missing/file"),
            ("missing/file", "missing/file"),
        ] {
            assert_eq!(real(&dir.join(named)).unwrap(), dir.join(expected), "{named}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

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
