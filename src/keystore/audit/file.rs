//! The file of the audit log: its SQL. Knows rows and bytes, nothing of what is sealed in them.
//!
//! The same care as for the keystore's own file: [`Database`].

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::event::EventTime;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;
use crate::keystore::storage::database::{Database, Kind, Scope, Sharing, checkpoint};
use crate::keystore::storage::file::{Draft, inspect, warn_if_roots};

/// A row of `record`.
pub(super) struct RecordRow {
    pub(super) position: Position,
    pub(super) sealed: Vec<u8>,
}

/// A signed position, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedRow {
    pub(super) position: Position,
    pub(super) time: EventTime,
    pub(super) signature: Vec<u8>,
}

/// An open log.
pub(super) struct AuditFile(Database);

impl AuditFile {
    /// Opens the log at `path`; `None` if there is none.
    /// Errors: `NotAKeystore` for a file that is something else, `NewerSchema`, `Locked`,
    /// `Database`, `Io`.
    pub(super) fn open(path: &Path, sharing: Sharing) -> Result<Option<Self>, KeystoreError> {
        match inspect(path) {
            Err(KeystoreError::Missing(_)) => return Ok(None),
            there => there?,
        }
        let mut database = Database::connect(path, sharing)?;
        // A record that does not belong there is told by the chain, whatever it came from.
        database.trust_wal()?;
        database.identify(&KIND)?;
        database.configure()?;
        warn_if_roots(path);
        Ok(Some(Self(database)))
    }

    /// Makes an empty log that begins behind `anchor`. It appears under its name when it is whole.
    /// Errors: `Exists`, `Io`, `Database`.
    pub(super) fn create(
        path: &Path,
        anchor: &SignedRow,
        since: &[u8],
    ) -> Result<(), KeystoreError> {
        let draft = Draft::audit_log(path)?;
        let database = Database::connect(draft.path(), Sharing::Alone)?;
        // Only an empty file can be told: pages that pruning frees can be given back one by one.
        database.run(|connection| connection.pragma_update(None, "auto_vacuum", "INCREMENTAL"))?;
        database.configure()?;
        database.run(|connection| connection.execute_batch(include_str!("schema.sql")))?;
        let mut file = Self(database);
        file.write(|rows| {
            rows.put_anchor(anchor)?;
            rows.put_last_use(&[0; 16], since)
        })?;
        file.0.close()?;
        draft.publish()
    }

    /// Runs `work` on one consistent state of the file.
    pub(super) fn read<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.0.read(|scope| work(&Rows(scope)))
    }

    /// Runs `work` as the only writer; durable when it returns `Ok`.
    pub(super) fn write<T>(
        &mut self,
        work: impl FnOnce(&Rows<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.0.write(|scope| work(&Rows(scope)))
    }

    /// Gives the pages of deleted records back to the filesystem, after the zeroes that replaced
    /// them were written over what they held. Each step is a transaction of its own: others
    /// write in between, and a crash leaves some pages for the next time. `false` if another
    /// process was in the way: what is left is used for new records, or given back later.
    /// Errors: `Database`; nothing is lost then.
    pub(super) fn shrink(&mut self) -> Result<bool, KeystoreError> {
        let shrunk = self.0.run_if_free(|connection| {
            let mut free = free_pages(connection)?;
            if free == 0 {
                return Ok(true);
            }
            if !checkpoint(connection)? {
                return Ok(false);
            }
            loop {
                free_some(connection)?;
                let left = free_pages(connection)?;
                if left == 0 || left >= free {
                    return checkpoint(connection);
                }
                free = left;
            }
        })?;
        Ok(shrunk.unwrap_or(false))
    }
}

fn free_pages(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "freelist_count", |row| row.get(0))
}

/// Moves what lies behind free pages into them, and cuts the file.
fn free_some(connection: &Connection) -> rusqlite::Result<()> {
    let mut vacuum = connection.prepare_cached("PRAGMA incremental_vacuum(1000)")?;
    let mut rows = vacuum.query([])?;
    // It frees one page for each row that is asked for.
    while rows.next()?.is_some() {}
    Ok(())
}

/// The rows, as one transaction sees them.
pub(super) struct Rows<'a>(Scope<'a>);

impl Rows<'_> {
    /// The newest record's position; that of the anchor in an empty log.
    pub(super) fn head(&self) -> Result<Position, KeystoreError> {
        let last = self.0.run(|connection| {
            let mut query = connection
                .prepare_cached("SELECT seq, hash FROM record ORDER BY seq DESC LIMIT 1")?;
            query.query_row([], |row| read_position(row, 0)).optional()
        })?;
        last.map_or_else(|| Ok(self.anchor()?.position), Ok)
    }

    /// The hash of a record that is there.
    pub(super) fn hash(&self, seq: u64) -> Result<Option<[u8; 32]>, KeystoreError> {
        self.0.run(|connection| {
            let mut query = connection.prepare_cached("SELECT hash FROM record WHERE seq = ?1")?;
            query.query_row([signed(seq)], |row| row.get(0)).optional()
        })
    }

    pub(super) fn put_record(&self, row: &RecordRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO record (seq, hash, sealed) VALUES (?1, ?2, ?3)";
        let Position { seq, hash } = row.position;
        self.0
            .run(|connection| {
                connection.prepare_cached(SQL)?.execute(params![signed(seq), hash, row.sealed])
            })
            .map(drop)
    }

    /// At most `limit` records behind `seq`, in order.
    pub(super) fn records(&self, seq: u64, limit: u32) -> Result<Vec<RecordRow>, KeystoreError> {
        const SQL: &str = "SELECT seq, hash, sealed FROM record WHERE seq > ?1
             ORDER BY seq LIMIT ?2";
        self.0.run(|connection| {
            let mut query = connection.prepare_cached(SQL)?;
            let rows = query.query_map(params![signed(seq), limit], |row| {
                Ok(RecordRow { position: read_position(row, 0)?, sealed: row.get(2)? })
            })?;
            rows.collect()
        })
    }

    /// Deletes the records, and the checkpoints, up to and with `seq`.
    pub(super) fn delete_until(&self, seq: u64) -> Result<(), KeystoreError> {
        self.0
            .run(|connection| {
                connection.execute("DELETE FROM record WHERE seq <= ?1", [signed(seq)])?;
                connection.execute("DELETE FROM checkpoint WHERE seq <= ?1", [signed(seq)])
            })
            .map(drop)
    }

    pub(super) fn anchor(&self) -> Result<SignedRow, KeystoreError> {
        self.0.run(|connection| {
            let mut query =
                connection.prepare_cached("SELECT seq, hash, time, signature FROM anchor")?;
            query.query_row([], read_signed)
        })
    }

    pub(super) fn put_anchor(&self, row: &SignedRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO anchor (one, seq, hash, time, signature)
             VALUES (1, ?1, ?2, ?3, ?4) ON CONFLICT (one) DO UPDATE SET
             seq = excluded.seq, hash = excluded.hash, time = excluded.time,
             signature = excluded.signature";
        self.put_signed(SQL, row)
    }

    /// The checkpoints, oldest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<SignedRow>, KeystoreError> {
        const SQL: &str = "SELECT seq, hash, time, signature FROM checkpoint ORDER BY seq";
        self.0
            .run(|connection| connection.prepare_cached(SQL)?.query_map([], read_signed)?.collect())
    }

    pub(super) fn last_checkpoint(&self) -> Result<Option<SignedRow>, KeystoreError> {
        const SQL: &str = "SELECT seq, hash, time, signature FROM checkpoint
             ORDER BY seq DESC LIMIT 1";
        self.0
            .run(|connection| connection.prepare_cached(SQL)?.query_row([], read_signed).optional())
    }

    pub(super) fn put_checkpoint(&self, row: &SignedRow) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT OR REPLACE INTO checkpoint (seq, hash, time, signature)
             VALUES (?1, ?2, ?3, ?4)";
        self.put_signed(SQL, row)
    }

    fn put_signed(&self, sql: &str, row: &SignedRow) -> Result<(), KeystoreError> {
        let SignedRow { position, time, signature } = row;
        self.0
            .run(|connection| {
                let values = params![signed(position.seq), position.hash, time.millis(), signature];
                connection.prepare_cached(sql)?.execute(values)
            })
            .map(drop)
    }

    pub(super) fn last_use(&self, key: &[u8; 16]) -> Result<Option<Vec<u8>>, KeystoreError> {
        self.0.run(|connection| {
            let mut query =
                connection.prepare_cached("SELECT sealed FROM last_use WHERE key_id = ?1")?;
            query.query_row([key], |row| row.get(0)).optional()
        })
    }

    pub(super) fn put_last_use(&self, key: &[u8; 16], sealed: &[u8]) -> Result<(), KeystoreError> {
        const SQL: &str = "INSERT INTO last_use (key_id, sealed) VALUES (?1, ?2)
             ON CONFLICT (key_id) DO UPDATE SET sealed = excluded.sealed";
        self.0
            .run(|connection| connection.prepare_cached(SQL)?.execute(params![key, sealed]))
            .map(drop)
    }

    /// What SQLite's own check finds wrong.
    pub(super) fn damage(&self) -> Result<Vec<String>, KeystoreError> {
        self.0.damage()
    }
}

fn read_position(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Position> {
    // Nobody but an editor by hand makes a negative number: it fits into no chain.
    let seq = u64::try_from(row.get::<_, i64>(at)?).unwrap_or(u64::MAX);
    Ok(Position { seq, hash: row.get(at + 1)? })
}

fn read_signed(row: &rusqlite::Row<'_>) -> rusqlite::Result<SignedRow> {
    Ok(SignedRow {
        position: read_position(row, 0)?,
        time: EventTime::from_millis(row.get(2)?),
        signature: row.get(3)?,
    })
}

fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// Records that are read in one transaction.
pub(super) const PAGE: u32 = 512;

const KIND: Kind = Kind { application: 0x6b6d_6175, newest: 1 };
