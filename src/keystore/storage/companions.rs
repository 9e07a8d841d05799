//! The files that SQLite keeps beside one of its own. They belong together: what another keystore
//! left there, SQLite would take for changes of this one. They are found by the name, so a file under
//! two names has two sets of them, and each name's changes destroy what the other's were.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags, statx};

use crate::keystore::error::{KeystoreError, SecondName};

/// What is added to the file's name: the WAL, its index, and the journal of a file without WAL.
pub(in crate::keystore) const SUFFIXES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The file with `suffix` added to its name.
pub(in crate::keystore) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Does a WAL lie there with something in it?
pub(in crate::keystore) fn wal_waits(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0)
}

/// Checks that a file of SQLite, and what lies beside it, has no second name.
/// Errors: `SecondName`.
pub(in crate::keystore) fn check_one_name(path: &Path) -> Result<(), KeystoreError> {
    let second = |path: &Path| {
        // The owner may follow a link of theirs to it: what counts is the file itself.
        let there = statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS).ok()?;
        // A directory has many links, and is refused as what it is.
        if FileType::from_raw_mode(there.stx_mode.into()) != FileType::RegularFile {
            None
        } else if there.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            Some(SecondName::Mounted)
        } else if there.stx_nlink > 1 {
            Some(SecondName::Linked)
        } else {
            None
        }
    };
    let all = SUFFIXES.iter().map(|suffix| beside(path, suffix));
    for path in std::iter::once(path.to_owned()).chain(all) {
        if let Some(how) = second(&path) {
            return Err(KeystoreError::SecondName { path, how });
        }
    }
    Ok(())
}

/// Checks that nothing is left of a file that had this name before.
/// Errors: `Leftover`; `Exists` if somebody made the file just now.
pub(in crate::keystore) fn check_none_left(path: &Path) -> Result<(), KeystoreError> {
    match left(path).next() {
        None => Ok(()),
        Some(_) if fs::symlink_metadata(path).is_ok() => {
            Err(KeystoreError::Exists(path.to_owned()))
        }
        Some(left) => Err(KeystoreError::Leftover(left)),
    }
}

/// Renames what is left of a file that had this name before. `mark` makes the names new ones.
/// Errors: `Io`.
pub(in crate::keystore) fn set_aside(path: &Path, mark: &str) -> Result<(), KeystoreError> {
    for left in left(path) {
        if fs::symlink_metadata(path).is_ok() {
            return Ok(());
        }
        let aside = beside(&left, &format!(".left-{mark}"));
        fs::rename(&left, &aside).map_err(|source| KeystoreError::Io {
            path: left.clone(),
            doing: "set aside",
            source,
        })?;
        log::warn!(
            "'{}' was left by a file that is not there any more: it is '{}' now",
            left.display(),
            aside.display()
        );
    }
    Ok(())
}

fn left(path: &Path) -> impl Iterator<Item = PathBuf> {
    SUFFIXES
        .iter()
        .map(|suffix| beside(path, suffix))
        .filter(|left| fs::symlink_metadata(left).is_ok())
}
