//! Rows in SQLite: the only SQL. Knows tables and bytes, nothing of what is sealed in them. How the
//! file is opened and kept durable: `database`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rusqlite::{OptionalExtension, params};

use crate::id::KeyId;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::database::{Database, Kind, Scope, Sharing, checkpoint};
use crate::keystore::storage::schema;

const KIND: Kind = Kind { application: 0x6b6d_7366, newest: schema::NEWEST };

/// The tables of records: id, perhaps the key it belongs to, and sealed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::keystore) enum Table {
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
    pub(in crate::keystore) const ALL: [Self; 11] = [
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

    pub(in crate::keystore) const fn name(self) -> &'static str {
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

    /// Is what is in it lost data, if the file goes on without its WAL? Not so of what changes
    /// often, and can be made again.
    pub(in crate::keystore) const fn is_lasting(self) -> bool {
        match self {
            Self::Volume | Self::Grant | Self::ImportKey => false,
            Self::Key
            | Self::Wrapping
            | Self::Material
            | Self::Alias
            | Self::Principal
            | Self::AccessKey
            | Self::KeyStore
            | Self::TransferKey => true,
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
pub(in crate::keystore) struct Row {
    pub(in crate::keystore) id: Vec<u8>,
    pub(in crate::keystore) owner: Option<KeyId>,
    pub(in crate::keystore) sealed: Vec<u8>,
}

/// A row of `slot`.
#[derive(Clone)]
pub(in crate::keystore) struct SlotRow {
    pub(in crate::keystore) id: i64,
    pub(in crate::keystore) kind: String,
    pub(in crate::keystore) salt: [u8; 16],
    pub(in crate::keystore) cost: [u32; 3],
    /// What else is needed to unlock, by kind.
    pub(in crate::keystore) detail: Vec<u8>,
    pub(in crate::keystore) root: Vec<u8>,
    pub(in crate::keystore) sealed: Vec<u8>,
}

/// The row of `keystore`.
pub(in crate::keystore) struct MetaRow {
    pub(in crate::keystore) id: [u8; 16],
    pub(in crate::keystore) sealed: Vec<u8>,
}

/// An open keystore file.
pub(in crate::keystore) struct Store(Database);

impl Store {
    /// Makes the tables in an existing empty file, which nobody else knows yet.
    pub(in crate::keystore) fn create(path: &Path) -> Result<Self, KeystoreError> {
        let database = Database::connect(path, Sharing::Alone)?;
        database.configure()?;
        database.run(schema::create)?;
        Ok(Self(database))
    }

    /// Opens a keystore file that exists. `sharing` says whether other processes on this machine
    /// may use it meanwhile. Nothing is written before the file is known to be a keystore.
    pub(in crate::keystore) fn open(path: &Path, sharing: Sharing) -> Result<Self, KeystoreError> {
        let mut database = Database::connect(path, sharing)?;
        database.identify(&KIND)?;
        database.configure()?;
        database.run_mut(schema::upgrade)?;
        Ok(Self(database))
    }

    /// The same, also on a filesystem that is full: the index of the WAL, which processes share, has no
    /// room there, and whoever is alone needs none. Says who may use the file now.
    pub(in crate::keystore) fn open_with_or_without_room(
        path: &Path,
        sharing: Sharing,
    ) -> Result<(Self, Sharing), KeystoreError> {
        match Self::open(path, sharing) {
            Err(KeystoreError::NoRoom { .. }) if sharing == Sharing::Processes => {
                let store = Self::open(path, Sharing::Alone)?;
                log::warn!(
                    "the filesystem of the keystore is full: it is read, by this process alone, and \
                     others can use it when this one has ended"
                );
                Ok((store, Sharing::Alone))
            }
            opened => Ok((opened?, sharing)),
        }
    }

    /// Opens the file as it is without its WAL, to read only.
    /// Errors: as [`Database::without_wal`] and [`Database::identify`].
    pub(in crate::keystore) fn without_wal(path: &Path) -> Result<Self, KeystoreError> {
        let database = Database::without_wal(path)?;
        database.identify(&KIND)?;
        Ok(Self(database))
    }

    /// As [`Database::is_doubtful`].
    pub(in crate::keystore) fn is_wal_doubtful(&self) -> bool {
        self.0.is_doubtful()
    }

    /// As [`Database::trust_wal`]: for who has seen that the rows are those that were written.
    pub(in crate::keystore) fn trust_wal(&mut self) -> Result<(), KeystoreError> {
        self.0.trust_wal()
    }

    /// Runs `work` on one consistent state of the file.
    pub(in crate::keystore) fn read<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.0.read(|scope| work(&Rows(scope)))
    }

    /// Runs `work` as the only writer; what it did is durable when this returns `Ok`, and has
    /// not happened when it returns `Err` or the process dies.
    pub(in crate::keystore) fn write<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.0.write(|scope| work(&Rows(scope)))
    }

    /// A number that changes when another connection changed the file.
    pub(in crate::keystore) fn version(&self) -> Result<i64, KeystoreError> {
        self.0.run(|connection| {
            connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
        })
    }

    /// Copies the WAL into the file, as far as no other process reads an older state: whoever moves or
    /// copies the file alone has what was written. Waits for nobody, and fails nothing: what is in
    /// the WAL is durable already.
    pub(in crate::keystore) fn checkpoint(&self) {
        if self.0.is_doubtful() {
            return;
        }
        const SQL: &str = "PRAGMA wal_checkpoint(PASSIVE)";
        let done =
            self.0.run(|connection| connection.prepare_cached(SQL)?.query_row([], |_| Ok(())));
        if let Err(error) = done {
            log::debug!("what was written stays in the keystore's WAL: {error}");
        }
    }

    /// Makes deleted rows vanish from the file and the WAL: zeroed pages are written back over
    /// the old ones before the file shrinks. `false` if another process is in the way just now.
    pub(in crate::keystore) fn scrub(&mut self) -> Result<bool, KeystoreError> {
        if self.0.is_doubtful() {
            return Ok(false);
        }
        let scrubbed = self.0.run_if_free(|connection| {
            if !checkpoint(connection)? {
                return Ok(false);
            }
            let vacuumed = connection.execute_batch("VACUUM");
            // Also if that failed: what it wrote until the disk was full lies in the WAL.
            let emptied = checkpoint(connection);
            vacuumed.and(emptied)
        });
        scrubbed.map(|done| done.unwrap_or(false))
    }

    /// Closes the last connection to a new file, so that everything is in it and no WAL is left.
    /// Errors: `NoRoom`, `Locked`, `Database`: the file is not complete.
    pub(in crate::keystore) fn close(self) -> Result<(), KeystoreError> {
        self.0.close()
    }
}

/// The rows, as one transaction sees them.
pub(in crate::keystore) struct Rows<'a>(Scope<'a>);

impl Rows<'_> {
    pub(in crate::keystore) fn meta(&self) -> Result<MetaRow, KeystoreError> {
        self.0.run(|connection| {
            let mut query = connection.prepare_cached("SELECT id, sealed FROM keystore")?;
            query.query_row([], |row| Ok(MetaRow { id: row.get(0)?, sealed: row.get(1)? }))
        })
    }

    pub(in crate::keystore) fn put_meta(&self, meta: &MetaRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO keystore (one, id, sealed) VALUES (1, ?1, ?2)
             ON CONFLICT (one) DO UPDATE SET id = excluded.id, sealed = excluded.sealed";
        self.0.run(|connection| {
            connection.prepare_cached(SQL)?.execute(params![meta.id, meta.sealed]).map(drop)
        })
    }

    pub(in crate::keystore) fn get(
        &self,
        table: Table,
        id: &[u8],
    ) -> Result<Option<Row>, KeystoreError> {
        let sql = format!("{} WHERE id = ?1", select(table));
        self.0
            .run(|connection| connection.prepare_cached(&sql)?.query_row([id], read_row).optional())
    }

    /// The rows that belong to a key.
    pub(in crate::keystore) fn of_key(
        &self,
        table: Table,
        key: KeyId,
    ) -> Result<Vec<Row>, KeystoreError> {
        let sql = format!("{} WHERE {} = ?1", select(table), table.owner());
        self.0.run(|connection| {
            connection.prepare_cached(&sql)?.query_map([key.as_bytes()], read_row)?.collect()
        })
    }

    pub(in crate::keystore) fn all(&self, table: Table) -> Result<Vec<Row>, KeystoreError> {
        let sql = format!("{} ORDER BY id", select(table));
        self.0.run(|connection| connection.prepare_cached(&sql)?.query_map([], read_row)?.collect())
    }

    pub(in crate::keystore) fn count(&self, table: Table) -> Result<usize, KeystoreError> {
        let sql = format!("SELECT count(*) FROM {}", table.name());
        let count: i64 = self
            .0
            .run(|connection| connection.prepare_cached(&sql)?.query_row([], |row| row.get(0)))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// How many rows belong to a key.
    pub(in crate::keystore) fn count_of_key(
        &self,
        table: Table,
        key: KeyId,
    ) -> Result<usize, KeystoreError> {
        let sql = format!("SELECT count(*) FROM {} WHERE {} = ?1", table.name(), table.owner());
        let count: i64 = self.0.run(|connection| {
            connection.prepare_cached(&sql)?.query_row([key.as_bytes()], |row| row.get(0))
        })?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    pub(in crate::keystore) fn put(&self, table: Table, row: &Row) -> Result<(), KeystoreError> {
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
        self.0.run(|connection| {
            let mut insert = connection.prepare_cached(&sql)?;
            match row.owner {
                Some(key) if owned => insert.execute(params![row.id, row.sealed, key.as_bytes()]),
                _ => insert.execute(params![row.id, row.sealed]),
            }
            .map(drop)
        })
    }

    pub(in crate::keystore) fn delete(&self, table: Table, id: &[u8]) -> Result<(), KeystoreError> {
        let sql = format!("DELETE FROM {} WHERE id = ?1", table.name());
        self.0.run(|connection| connection.prepare_cached(&sql)?.execute([id]).map(drop))
    }

    pub(in crate::keystore) fn slots(&self) -> Result<Vec<SlotRow>, KeystoreError> {
        const SQL: &str = "SELECT id, kind, salt, memory_kib, passes, lanes, root, sealed, detail
             FROM slot ORDER BY id";
        self.0.run(|connection| connection.prepare_cached(SQL)?.query_map([], read_slot)?.collect())
    }

    /// The id that the next new slot gets: never one that was used before.
    pub(in crate::keystore) fn next_slot_id(&self) -> Result<i64, KeystoreError> {
        const SQL: &str = "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence
             WHERE name = 'slot'";
        self.0.run(|connection| connection.prepare_cached(SQL)?.query_row([], |row| row.get(0)))
    }

    pub(in crate::keystore) fn put_slot(&self, slot: &SlotRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO slot
             (id, kind, salt, memory_kib, passes, lanes, root, sealed, detail)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        let [memory, passes, lanes] = slot.cost;
        self.0
            .run(|connection| {
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

    pub(in crate::keystore) fn delete_slot(&self, id: i64) -> Result<(), KeystoreError> {
        self.0.run(|connection| {
            connection.prepare_cached("DELETE FROM slot WHERE id = ?1")?.execute([id]).map(drop)
        })
    }

    /// What SQLite's own checks find wrong: damaged pages, rows that refer to no key.
    pub(in crate::keystore) fn damage(&self) -> Result<Vec<String>, KeystoreError> {
        let mut found = self.0.damage()?;
        let orphans: Vec<String> = self.0.run(|connection| {
            let mut check = connection.prepare("PRAGMA foreign_key_check")?;
            check.query_map([], |row| row.get(0))?.collect()
        })?;
        found.extend(orphans.iter().map(|table| format!("a row of {table} refers to no key")));
        Ok(found)
    }

    /// The definitions of everything in the file, to compare with those of a new one.
    pub(in crate::keystore) fn schema(&self) -> Result<Vec<String>, KeystoreError> {
        self.0.run(schema::definitions)
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
