//! A keystore in a directory of its own, unlocked by a key file (a passphrase takes a while).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kmsfs::id::KeyId;
use kmsfs::keystore::{Caller, CreateKey, KeyRef, Keystore, Unlock, create_key_file};

/// A directory that goes away with its owner.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "kmsfs-keystore-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(unique);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A fresh keystore, its directory and its key file.
pub(crate) struct Fixture {
    pub(crate) keystore: Keystore,
    pub(crate) dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new();
        create_key_file(&dir.join("key")).unwrap();
        let unlock = Unlock::KeyFile(dir.join("key"));
        let keystore = Keystore::create(&dir.join("store.db"), &unlock, day(0)).unwrap();
        Self { keystore, dir }
    }

    /// The keystore that another fixture left in its directory.
    pub(crate) fn in_dir(dir: TempDir) -> Self {
        let unlock = Unlock::KeyFile(dir.join("key"));
        let keystore = Keystore::open(&dir.join("store.db"), &unlock).unwrap();
        Self { keystore, dir }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("store.db")
    }

    /// The keystore as a volume uses it.
    pub(crate) fn volume(&self) -> Keystore {
        self.keystore.acting_for(Caller::service())
    }

    pub(crate) fn unlock(&self) -> Unlock {
        Unlock::KeyFile(self.dir.join("key"))
    }

    /// The file, with everything that was in the WAL.
    pub(crate) fn checkpointed(&self) -> PathBuf {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        self.path()
    }

    /// Another handle on the same file, as another process has it.
    pub(crate) fn reopen(&self) -> Keystore {
        Keystore::open(&self.path(), &self.unlock()).unwrap()
    }

    pub(crate) fn key(&self) -> KeyId {
        self.keystore.create_key(CreateKey::default(), day(0)).unwrap().key_id
    }

    /// Runs SQL on the file as somebody with the sqlite3 shell would.
    pub(crate) fn sql(&self, sql: &str) {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        connection.execute_batch(sql).unwrap();
    }
}

/// A moment that many days after a fixed start.
pub(crate) fn day(days: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + days * 86_400)
}

pub(crate) fn by_id(key: KeyId) -> KeyRef {
    KeyRef::Id(key)
}
