//! Rows in SQLite: the only SQL. Knows tables and bytes, nothing of what is sealed in them.
//!
//! WAL with `synchronous=FULL`: a transaction is durable before it is reported. `secure_delete`:
//! what is deleted is overwritten. Two processes may have the file open; a writer waits for the
//! other for [`BUSY_TIMEOUT`].

pub(super) mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::error::KeystoreError;
use crate::id::KeyId;

const APPLICATION: i64 = 0x6b6d_7366;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The tables of records: id, perhaps the key it belongs to, and sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Key,
    Wrapping,
    Material,
    Alias,
    Volume,
    Grant,
    ImportKey,
    Principal,
    AccessKey,
    KeyStore,
    TransferKey,
}

impl Table {
    /// In an order in which what a row refers to comes before it.
    pub(super) const ALL: [Self; 11] = [
        Self::Key,
        Self::Wrapping,
        Self::Material,
        Self::Alias,
        Self::Volume,
        Self::Grant,
        Self::ImportKey,
        Self::Principal,
        Self::AccessKey,
        Self::KeyStore,
        Self::TransferKey,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Key => "kms_key",
            Self::Wrapping => "wrapping_key",
            Self::Material => "key_material",
            Self::Alias => "alias",
            Self::Volume => "volume",
            Self::Grant => "key_grant",
            Self::ImportKey => "import_key",
            Self::Principal => "principal",
            Self::AccessKey => "access_key",
            Self::KeyStore => "key_store",
            Self::TransferKey => "transfer_key",
        }
    }

    /// The column, or expression, that tells which key a row belongs to.
    const fn owner(self) -> &'static str {
        match self {
            Self::Material | Self::Alias | Self::Grant | Self::ImportKey => "key_id",
            Self::Key
            | Self::Wrapping
            | Self::Volume
            | Self::Principal
            | Self::AccessKey
            | Self::KeyStore
            | Self::TransferKey => "NULL",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Table {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|table| table.name() == name).ok_or("no such table")
    }
}

/// A row of one of the record tables.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) id: Vec<u8>,
    pub(super) owner: Option<KeyId>,
    pub(super) sealed: Vec<u8>,
}

/// A row of `slot`.
#[derive(Clone)]
pub(super) struct SlotRow {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) salt: [u8; 16],
    pub(super) cost: [u32; 3],
    /// What else is needed to unlock, by kind.
    pub(super) detail: Vec<u8>,
    pub(super) root: Vec<u8>,
    pub(super) sealed: Vec<u8>,
}

/// The row of `keystore`.
pub(super) struct MetaRow {
    pub(super) id: [u8; 16],
    pub(super) sealed: Vec<u8>,
}

/// An open database file.
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Makes the tables in an existing empty file, which nobody else knows yet.
    pub(super) fn create(path: &Path) -> Result<Self, KeystoreError> {
        let store = Self::connect(path, Sharing::Alone)?;
        let made = configure(&store.connection).and_then(|()| schema::create(&store.connection));
        made.map_err(|error| fault(path, &error))?;
        Ok(store)
    }

    /// Opens a keystore file that exists. `sharing` says whether other processes on this machine
    /// may use it meanwhile. Nothing is written before the file is known to be a keystore.
    pub(super) fn open(path: &Path, sharing: Sharing) -> Result<Self, KeystoreError> {
        let mut store = Self::connect(path, sharing)?;
        store.identify()?;
        let ready =
            configure(&store.connection).and_then(|()| schema::upgrade(&mut store.connection));
        ready.map_err(|error| fault(path, &error))?;
        Ok(store)
    }

    fn connect(path: &Path, sharing: Sharing) -> Result<Self, KeystoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)
            .and_then(|mut connection| harden(&mut connection, sharing).map(|()| connection))
            .map_err(|error| fault(path, &error))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Errors: `NotAKeystore`, `NewerSchema`.
    fn identify(&self) -> Result<(), KeystoreError> {
        let number = |name| {
            let value = self.connection.pragma_query_value(None, name, |row| row.get(0));
            value.map_err(|error| fault(&self.path, &error))
        };
        let (application, found): (i64, i64) = (number("application_id")?, number("user_version")?);
        let path = self.path.clone();
        if application != APPLICATION || found < 1 {
            Err(KeystoreError::NotAKeystore(path))
        } else if found > schema::NEWEST {
            Err(KeystoreError::NewerSchema { path, found, supported: schema::NEWEST })
        } else {
            Ok(())
        }
    }

    /// Runs `work` on one consistent state of the file.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.transaction(TransactionBehavior::Deferred, work)
    }

    /// Runs `work` as the only writer; what it did is durable when this returns `Ok`, and has
    /// not happened when it returns `Err` or the process dies.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.transaction(TransactionBehavior::Immediate, work)
    }

    fn transaction<T>(
        &mut self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let path = &self.path;
        let begun = self.connection.transaction_with_behavior(behavior);
        let transaction = begun.map_err(|error| fault(path, &error))?;
        let done = work(&Rows { connection: &transaction, path })?;
        transaction.commit().map_err(|error| fault(path, &error))?;
        Ok(done)
    }

    /// A number that changes when another connection changed the file.
    pub(super) fn version(&self) -> Result<i64, KeystoreError> {
        self.connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut pragma| pragma.query_row([], |row| row.get(0)))
            .map_err(|error| fault(&self.path, &error))
    }

    /// Makes deleted rows vanish from the file and the WAL: zeroed pages are written back over
    /// the old ones before the file shrinks. `false` if another process is in the way just now.
    pub(super) fn scrub(&mut self) -> Result<bool, KeystoreError> {
        let path = &self.path;
        let waiting = self.connection.busy_timeout(SCRUB_TIMEOUT);
        let scrubbed = waiting.and_then(|()| {
            if self.checkpoint()? {
                self.connection.execute_batch("VACUUM")?;
                return self.checkpoint();
            }
            Ok(false)
        });
        let restored = self.connection.busy_handler(Some(wait_for_lock));
        restored.map_err(|error| fault(path, &error))?;
        match scrubbed {
            Err(error) if is_busy(&error) => Ok(false),
            other => other.map_err(|error| fault(path, &error)),
        }
    }

    /// Copies the whole WAL into the file and empties it.
    fn checkpoint(&self) -> rusqlite::Result<bool> {
        let busy: i64 =
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(busy == 0)
    }

    /// Closes the last connection to a new file, so that everything is in it and no WAL is left.
    pub(super) fn close(self) -> Result<(), KeystoreError> {
        let Self { connection, path } = self;
        connection.close().map_err(|(_, error)| fault(&path, &error))
    }
}

/// Who may have the file open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Processes of this machine: the WAL index is shared memory.
    Processes,
    /// Nobody: no shared memory, and a lock for as long as it is open. For network filesystems.
    Alone,
}

/// What has to be said before the file is first read.
pub(super) fn harden(connection: &mut Connection, sharing: Sharing) -> rusqlite::Result<()> {
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

pub(super) fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "secure_delete", "ON", |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    // VACUUM would otherwise write a copy of the file to a public directory.
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Waits a little for another process's lock, up to [`BUSY_TIMEOUT`] in all. SQLite's own handler
/// soon waits 100 ms at a time, and starves beside a process that writes without a pause.
fn wait_for_lock(tries: i32) -> bool {
    let waited = STEP.saturating_mul(u32::try_from(tries).unwrap_or(u32::MAX));
    std::thread::sleep(STEP);
    waited < BUSY_TIMEOUT
}

/// Erasing can wait for another time, and everybody else waits for it meanwhile.
const SCRUB_TIMEOUT: Duration = Duration::from_millis(200);

const STEP: Duration = Duration::from_millis(1);

/// The rows, as one transaction sees them.
pub(super) struct Rows<'a> {
    connection: &'a Connection,
    path: &'a Path,
}

impl Rows<'_> {
    pub(super) fn meta(&self) -> Result<MetaRow, KeystoreError> {
        self.run(|connection| {
            let mut query = connection.prepare_cached("SELECT id, sealed FROM keystore")?;
            query.query_row([], |row| Ok(MetaRow { id: row.get(0)?, sealed: row.get(1)? }))
        })
    }

    pub(super) fn put_meta(&self, meta: &MetaRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO keystore (one, id, sealed) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET id = excluded.id, sealed = excluded.sealed";
        self.run(|connection| {
            connection.prepare_cached(SQL)?.execute(params![meta.id, meta.sealed]).map(drop)
        })
    }

    pub(super) fn get(&self, table: Table, id: &[u8]) -> Result<Option<Row>, KeystoreError> {
        let sql = format!("{} WHERE id = ?1", select(table));
        self.run(|connection| connection.prepare_cached(&sql)?.query_row([id], read_row).optional())
    }

    /// The rows that belong to a key.
    pub(super) fn of_key(&self, table: Table, key: KeyId) -> Result<Vec<Row>, KeystoreError> {
        let sql = format!("{} WHERE {} = ?1", select(table), table.owner());
        self.run(|connection| {
            connection.prepare_cached(&sql)?.query_map([key.as_bytes()], read_row)?.collect()
        })
    }

    pub(super) fn all(&self, table: Table) -> Result<Vec<Row>, KeystoreError> {
        let sql = format!("{} ORDER BY id", select(table));
        self.run(|connection| connection.prepare_cached(&sql)?.query_map([], read_row)?.collect())
    }

    pub(super) fn count(&self, table: Table) -> Result<usize, KeystoreError> {
        let sql = format!("SELECT count(*) FROM {}", table.name());
        let count: i64 = self
            .run(|connection| connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// How many rows belong to a key.
    pub(super) fn count_of_key(&self, table: Table, key: KeyId) -> Result<usize, KeystoreError> {
        let sql = format!("SELECT count(*) FROM {} WHERE {} = ?1", table.name(), table.owner());
        let count: i64 = self.run(|connection| {
            connection.prepare_cached(&sql)?.query_row([key.as_bytes()], |row| row.get(0))
        })?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(super) fn put(&self, table: Table, row: &Row) -> Result<(), KeystoreError> {
        let name = table.name();
        let owned = table.owner() == "key_id";
        let sql = if owned {
            format!(
                "INSERT INTO {name} (id, sealed, key_id) VALUES (?1, ?2, ?3) ON CONFLICT (id)
                 DO UPDATE SET sealed = excluded.sealed, key_id = excluded.key_id"
            )
        } else {
            format!(
                "INSERT INTO {name} (id, sealed) VALUES (?1, ?2) ON CONFLICT (id)
                 DO UPDATE SET sealed = excluded.sealed"
            )
        };
        self.run(|connection| {
            let mut insert = connection.prepare_cached(&sql)?;
            match row.owner {
                Some(key) if owned => insert.execute(params![row.id, row.sealed, key.as_bytes()]),
                _ => insert.execute(params![row.id, row.sealed]),
            }
            .map(drop)
        })
    }

    pub(super) fn delete(&self, table: Table, id: &[u8]) -> Result<(), KeystoreError> {
        let sql = format!("DELETE FROM {} WHERE id = ?1", table.name());
        self.run(|connection| connection.prepare_cached(&sql)?.execute([id]).map(drop))
    }

    pub(super) fn slots(&self) -> Result<Vec<SlotRow>, KeystoreError> {
        const SQL: &str = "SELECT id, kind, salt, memory_kib, passes, lanes, root, sealed, detail
             FROM slot ORDER BY id";
        self.run(|connection| connection.prepare_cached(SQL)?.query_map([], read_slot)?.collect())
    }

    /// The id that the next new slot gets: never one that was used before.
    pub(super) fn next_slot_id(&self) -> Result<i64, KeystoreError> {
        const SQL: &str = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence
             WHERE name = 'slot'";
        self.run(|connection| connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)))
    }

    pub(super) fn put_slot(&self, slot: &SlotRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO slot
             (id, kind, salt, memory_kib, passes, lanes, root, sealed, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let [memory, passes, lanes] = slot.cost;
        self.run(|connection| {
            connection.prepare_cached(SQL)?.execute(params![
                slot.id,
                slot.kind,
                slot.salt,
                memory,
                passes,
                lanes,
                slot.root,
                slot.sealed,
                slot.detail
            ])
        })
        .map(drop)
    }

    pub(super) fn delete_slot(&self, id: i64) -> Result<(), KeystoreError> {
        self.run(|connection| {
            connection.prepare_cached("DELETE FROM slot WHERE id = ?1")?.execute([id]).map(drop)
        })
    }

    /// What SQLite's own checks find wrong: damaged pages, rows that refer to no key.
    pub(super) fn damage(&self) -> Result<Vec<String>, KeystoreError> {
        self.run(|connection| {
            let mut found: Vec<String> = connection
                .prepare("PRAGMA integrity_check")?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            found.retain(|line| line != "ok");
            let orphans = connection
                .prepare("PRAGMA foreign_key_check")?
                .query_map([], |row| row.get::<_, String>(0))?
                .map(|table| table.map(|table| format!("a row of {table} refers to no key")))
                .collect::<rusqlite::Result<Vec<_>>>()?;
            found.extend(orphans);
            Ok(found)
        })
    }

    /// The definitions of everything in the file, to compare with those of a new one.
    pub(super) fn schema(&self) -> Result<Vec<String>, KeystoreError> {
        self.run(schema::definitions)
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, KeystoreError> {
        work(self.connection).map_err(|error| fault(self.path, &error))
    }
}

fn select(table: Table) -> String {
    format!("SELECT id, {}, sealed FROM {}", table.owner(), table.name())
}

fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let owner: Option<[u8; 16]> = row.get(1)?;
    Ok(Row { id: row.get(0)?, owner: owner.map(KeyId::from_bytes), sealed: row.get(2)? })
}

fn read_slot(row: &rusqlite::Row<'_>) -> rusqlite::Result<SlotRow> {
    Ok(SlotRow {
        id: row.get(0)?,
        kind: row.get(1)?,
        salt: row.get(2)?,
        cost: [row.get(3)?, row.get(4)?, row.get(5)?],
        root: row.get(6)?,
        sealed: row.get(7)?,
        detail: row.get(8)?,
    })
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

pub(super) fn fault(path: &Path, error: &rusqlite::Error) -> KeystoreError {
    let path = path.to_owned();
    let advice = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            return KeystoreError::Locked(path);
        }
        Some(ErrorCode::NotADatabase) => return KeystoreError::NotAKeystore(path),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            ": check that it and its directory can be written"
        }
        Some(ErrorCode::DiskFull) => ": nothing was changed, make room and try again",
        Some(ErrorCode::DatabaseCorrupt) => ": restore it from a backup",
        _ => "",
    };
    KeystoreError::Database { path, detail: format!("{error}{advice}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a network filesystem, where the WAL index in shared memory would be one per machine.
    #[test]
    fn a_store_that_is_held_alone_needs_no_shared_memory_and_lets_nobody_else_in() {
        let dir = std::env::temp_dir().join(format!("kmsfs-store-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("store.db");
        std::fs::write(&path, "").unwrap();
        Store::create(&path).unwrap().close().unwrap();
        let mut alone = Store::open(&path, Sharing::Alone).unwrap();
        let row = MetaRow { id: [1; 16], sealed: vec![2; 8] };
        alone.write(|rows| rows.put_meta(&row)).unwrap();
        assert!(!dir.join("store.db-shm").exists());
        let second = Store::open(&path, Sharing::Alone).map(drop).unwrap_err();
        assert!(matches!(second, KeystoreError::Locked(_)), "{second}");
        drop(alone);
        let mut next = Store::open(&path, Sharing::Alone).unwrap();
        assert_eq!(next.read(|rows| rows.meta()).unwrap().sealed, row.sealed);
        drop(next);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
