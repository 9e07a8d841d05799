//! An SQLite file as kmsfs opens it, whatever its tables are: the keystore's own and the audit log.
//!
//! WAL with `synchronous=FULL`: a transaction is durable before it is reported. `secure_delete`:
//! what is deleted is overwritten. Several processes may have the file open; a writer waits for the
//! others for [`BUSY_TIMEOUT`].

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

use crate::keystore::error::KeystoreError;
use crate::keystore::storage::companions::wal_waits;
use crate::keystore::storage::directory::parent;

/// Who may have the file open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum Sharing {
    /// Processes of this machine: the WAL index is shared memory.
    Processes,
    /// Nobody: no shared memory, and a lock for as long as it is open. For network filesystems.
    Alone,
}

/// What a file says that it is.
pub(in crate::keystore) struct Kind {
    /// Its `application_id`.
    pub(in crate::keystore) application: i64,
    /// The newest `user_version` that this program knows.
    pub(in crate::keystore) newest: i64,
}

/// An open file.
pub(in crate::keystore) struct Database {
    connection: Connection,
    path: PathBuf,
    /// There was a WAL before it was opened, and nobody has said yet that it belongs to the file:
    /// it is read, as it must be after a crash, and stays where it is.
    doubtful: bool,
}

impl Database {
    /// Opens a file that exists. Nothing is written to it, not even what a WAL says that is there
    /// already, before [`Database::trust_wal`].
    /// Errors: `Database`.
    pub(in crate::keystore) fn connect(
        path: &Path,
        sharing: Sharing,
    ) -> Result<Self, KeystoreError> {
        let doubtful = wal_waits(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .and_then(|mut connection| harden(&mut connection, sharing).map(|()| connection))
            .and_then(|connection| keep_wal(&connection, doubtful).map(|()| connection))
            .map_err(|error| fault(path, &error))?;
        Ok(Self { connection, path: path.to_owned(), doubtful })
    }

    /// Opens a file without its WAL, to read only. Takes no lock: what others write meanwhile makes
    /// the file look damaged.
    /// Errors: `Database`.
    pub(in crate::keystore) fn without_wal(path: &Path) -> Result<Self, KeystoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(immutable(path), flags)
            .and_then(|mut connection| {
                harden(&mut connection, Sharing::Processes).map(|()| connection)
            })
            .map_err(|error| fault(path, &error))?;
        Ok(Self { connection, path: path.to_owned(), doubtful: false })
    }

    /// The WAL belongs to the file: it may be copied into it.
    /// Errors: `Database`.
    pub(in crate::keystore) fn trust_wal(&mut self) -> Result<(), KeystoreError> {
        if self.doubtful {
            self.run(|connection| keep_wal(connection, false))?;
            self.doubtful = false;
        }
        Ok(())
    }

    /// Must the WAL stay where it is?
    pub(in crate::keystore) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Checks that the file is of a kind, in a version that this program knows.
    /// Errors: `NotAKeystore`, `NewerSchema`; those of the file.
    pub(in crate::keystore) fn identify(&self, kind: &Kind) -> Result<(), KeystoreError> {
        let number = |name| -> Result<i64, KeystoreError> {
            self.run(|connection| connection.pragma_query_value(None, name, |row| row.get(0)))
        };
        let (application, found) = (number("application_id")?, number("user_version")?);
        let path = self.path.clone();
        if application != kind.application || found < 1 {
            Err(KeystoreError::NotAKeystore(path))
        } else if found > kind.newest {
            Err(KeystoreError::NewerSchema { path, found, supported: kind.newest })
        } else {
            Ok(())
        }
    }

    /// Says how the file is to be written. Only for one that is known to be ours: it may become
    /// a WAL database by that.
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn configure(&self) -> Result<(), KeystoreError> {
        self.run(|connection| {
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
            connection.pragma_update(None, "foreign_keys", "ON")?;
            connection.pragma_update(None, "cell_size_check", "ON")?;
            // VACUUM would otherwise write a copy of the file to a public directory.
            connection.pragma_update(None, "temp_store", "MEMORY")
        })
    }

    /// Runs `work` on one consistent state of the file.
    /// Errors: its own; `Locked`, `Database`.
    pub(in crate::keystore) fn read<T>(
        &mut self,
        work: impl FnOnce(Scope<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.transaction(TransactionBehavior::Deferred, work)
    }

    /// Runs `work` as the only writer; what it did is durable when this returns `Ok`, and has
    /// not happened when it returns `Err` or the process dies.
    /// Errors: its own; `Locked`, `Database`.
    pub(in crate::keystore) fn write<T>(
        &mut self,
        work: impl FnOnce(Scope<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.transaction(TransactionBehavior::Immediate, work)
    }

    fn transaction<T>(
        &mut self,
        behavior: TransactionBehavior,
        work: impl FnOnce(Scope<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let path = &self.path;
        let begun = self.connection.transaction_with_behavior(behavior);
        let transaction = begun.map_err(|error| fault(path, &error))?;
        let done = work(Scope { connection: &transaction, path })?;
        transaction.commit().map_err(|error| fault(path, &error))?;
        Ok(done)
    }

    /// Runs `work` outside of any transaction.
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeystoreError> {
        work(&self.connection).map_err(|error| fault(&self.path, &error))
    }

    /// As [`Database::run`], for work that begins transactions.
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn run_mut<T>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeystoreError> {
        work(&mut self.connection).map_err(|error| fault(&self.path, &error))
    }

    /// Runs `work` unless another process is in the way for longer than a moment: what can wait for
    /// another time does not keep everybody else waiting. `None` if one was.
    /// Errors: `Database`.
    pub(in crate::keystore) fn run_if_free<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, KeystoreError> {
        let done =
            self.connection.busy_timeout(SHORT_TIMEOUT).and_then(|()| work(&self.connection));
        self.run_mut(|connection| connection.busy_handler(Some(wait_for_lock)))?;
        match done {
            Err(error) if is_busy(&error) => Ok(None),
            done => done.map(Some).map_err(|error| fault(&self.path, &error)),
        }
    }

    /// Closes the last connection to a new file, so that everything is in it and no WAL is left.
    /// Closing alone would not say that the file has no room for what is in the WAL.
    /// Errors: `NoRoom`, `Locked`, `Database`: the file is not complete.
    pub(in crate::keystore) fn close(self) -> Result<(), KeystoreError> {
        if !self.run(checkpoint)? {
            return Err(KeystoreError::Locked(self.path));
        }
        let Self { connection, path, .. } = self;
        connection.close().map_err(|(_, error)| fault(&path, &error))
    }
}

/// The file, as one transaction sees it.
pub(in crate::keystore) struct Scope<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl Scope<'_> {
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeystoreError> {
        work(self.connection).map_err(|error| fault(self.path, &error))
    }

    /// What SQLite's own check finds wrong.
    /// Errors: `Locked`, `Database`.
    pub(in crate::keystore) fn damage(&self) -> Result<Vec<String>, KeystoreError> {
        self.run(|connection| {
            let mut check = connection.prepare("PRAGMA integrity_check")?;
            let lines = check.query_map([], |row| row.get(0))?;
            let mut found: Vec<String> = lines.collect::<rusqlite::Result<_>>()?;
            found.retain(|line| line != "ok");
            Ok(found)
        })
    }
}

/// Copies the whole WAL into the file and empties it. `false` if another process is in the way.
pub(in crate::keystore) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// What has to be said before the file is first read.
fn harden(connection: &mut Connection, sharing: Sharing) -> rusqlite::Result<()> {
    connection.busy_handler(Some(wait_for_lock))?;
    // A file edited by hand may bring triggers, views and functions of its own: none of them runs.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    if sharing == Sharing::Alone {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    Ok(())
}

/// While `keep`, the WAL is not copied into the file, and not removed.
fn keep_wal(connection: &Connection, keep: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep)?;
    let pages = if keep { 0 } else { CHECKPOINT_PAGES };
    connection.pragma_update_and_check(None, "wal_autocheckpoint", pages, |_| Ok(()))
}

/// The file at `path` as SQLite's URI for one that nobody changes: its WAL is not looked at.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

/// Waits a little for another process's lock, up to [`BUSY_TIMEOUT`] in all. SQLite's own handler
/// soon waits 100 ms at a time, and starves beside a process that writes without a pause.
fn wait_for_lock(tries: i32) -> bool {
    let waited = STEP.saturating_mul(u32::try_from(tries).unwrap_or(u32::MAX));
    std::thread::sleep(STEP);
    waited < BUSY_TIMEOUT
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// What SQLite's failure at the file at `path` means.
pub(in crate::keystore) fn fault(path: &Path, error: &rusqlite::Error) -> KeystoreError {
    let path = path.to_owned();
    if let Some(advice) = no_room(&path, error) {
        return KeystoreError::NoRoom { path, detail: format!("{error}: {advice}") };
    }
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            return KeystoreError::Locked(path);
        }
        Some(ErrorCode::NotADatabase) => return KeystoreError::NotAKeystore(path),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            return KeystoreError::Database { detail: format!("{error}: {}", permit(&path)), path };
        }
        Some(ErrorCode::SystemIoFailure) => ": make room if the disk is full, else check the disk",
        Some(ErrorCode::DatabaseCorrupt) => ": restore it from a backup",
        _ => "",
    };
    KeystoreError::Database { path, detail: format!("{error}{advice}") }
}

/// What to do about a file that may not be opened.
fn permit(path: &Path) -> String {
    let own = geteuid();
    match fs::metadata(path) {
        Ok(there) if !own.is_root() && there.uid() != own.as_raw() => {
            format!("it belongs to user {}, who can give it to you with chown", there.uid())
        }
        _ => "check that it and its directory can be written".to_owned(),
    }
}

/// What to do if the filesystem is full or read-only. SQLite has one word for many failures (on a
/// full disk the WAL's index cannot be made): the filesystem itself tells.
fn no_room(path: &Path, error: &rusqlite::Error) -> Option<&'static str> {
    let code = error.sqlite_error_code()?;
    let refused =
        matches!(code, ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly);
    let filesystem = if refused { statvfs(parent(path)).ok() } else { None };
    match (code, filesystem) {
        (ErrorCode::DiskFull, _) => Some("nothing was changed, make room and try again"),
        (_, Some(filesystem)) if filesystem.f_flag.contains(StatVfsMountFlags::RDONLY) => Some(
            "its filesystem is read-only: copy the keystore to a writable place, or remount it",
        ),
        (ErrorCode::SystemIoFailure, Some(filesystem)) if filesystem.f_bavail == 0 => {
            Some("its filesystem is full, make room and try again")
        }
        _ => None,
    }
}

/// SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1000;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// For what can wait for another time.
const SHORT_TIMEOUT: Duration = Duration::from_millis(200);
const STEP: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk was "disk I/O error", and the keystore unusable.
    #[test]
    fn regression_a_full_disk_is_told_as_one() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let full = rusqlite::Error::SqliteFailure(full, None);
        let failure = fault(Path::new("keystore.db"), &full);
        assert!(matches!(failure, KeystoreError::NoRoom { .. }), "{failure}");
        assert!(
            failure.to_string().contains("keystore.db': ") && failure.to_string().contains("room")
        );
    }
}
