//! The tables: how they are made, and brought up from an earlier schema.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::keystore::error::KeystoreError;
use crate::keystore::storage::database::fault;

/// The newest schema that this program reads and the one that it writes.
pub(in crate::keystore) const NEWEST: i64 = 2;

/// What leads from each schema to the next, from none to the newest.
const STEPS: [&str; 2] = [include_str!("schema-1.sql"), include_str!("schema-2.sql")];

/// Makes the tables in an empty file.
pub(in crate::keystore) fn create(connection: &Connection) -> rusqlite::Result<()> {
    STEPS.iter().try_for_each(|step| connection.execute_batch(step))
}

/// Adds what later schemas have, in one transaction: a crash leaves the old schema or the newest.
pub(in crate::keystore) fn upgrade(connection: &mut Connection) -> rusqlite::Result<()> {
    if version(connection)? >= NEWEST {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it meanwhile.
    let done = usize::try_from(version(&transaction)?).unwrap_or(0);
    STEPS.iter().skip(done).try_for_each(|step| transaction.execute_batch(step))?;
    transaction.commit()
}

/// The definitions in a new keystore.
pub(in crate::keystore) fn expected() -> Result<Vec<String>, KeystoreError> {
    let made = Connection::open_in_memory()
        .and_then(|connection| create(&connection).and_then(|()| definitions(&connection)));
    made.map_err(|error| fault(Path::new(":memory:"), &error))
}

/// The definitions of everything in a file.
pub(in crate::keystore) fn definitions(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    const SQL: &str = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql";
    connection.prepare(SQL)?.query_map([], |row| row.get(0))?.collect()
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgraded_file_has_the_definitions_of_a_new_one() {
        let mut old = Connection::open_in_memory().unwrap();
        old.execute_batch(STEPS[0]).unwrap();
        upgrade(&mut old).unwrap();
        assert_eq!(definitions(&old).unwrap(), expected().unwrap());
        assert_eq!(version(&old).unwrap(), NEWEST);
        upgrade(&mut old).unwrap();
    }
}
