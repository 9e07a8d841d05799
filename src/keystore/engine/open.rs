//! Makes a keystore, or opens and checks one.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::crypto::{self, Secret};
use crate::keystore::audit::{self, Audit};
use crate::keystore::custom_store::link::KeyStores;
use crate::keystore::engine::cache::{Cache, Looked};
use crate::keystore::engine::keystore::{Inner, Keystore, Opened, RowSet};
use crate::keystore::engine::metrics::Metrics;
use crate::keystore::error::KeystoreError;
use crate::keystore::error::parse::check_region;
use crate::keystore::model::caller::Caller;
use crate::keystore::storage::companions::{check_one_name, wal_waits};
use crate::keystore::storage::file;
use crate::keystore::storage::lease::Leases;
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::{SlotRow, Store};
use crate::keystore::storage::sealed::{Reader, Writer};
use crate::keystore::unlock::{self, Unlock};

impl Keystore {
    /// Makes a keystore without keys, with one unlock slot. The file has mode 0600, missing
    /// directories get 0700; it appears under its name only when it is complete and durable.
    /// Errors: `Exists`, `KeyFile`, `Io`, `Database`.
    pub fn create(path: &Path, unlock: &Unlock, now: SystemTime) -> Result<Self, KeystoreError> {
        Self::create_in(None, path, unlock, now)
    }

    /// As [`Keystore::create`], with a name for the Region that the keystore is: multi-Region keys
    /// are replicated between keystores of different Regions.
    /// Errors: as there; `Validation` for a name that no Region has.
    pub fn create_in(
        region: Option<&str>,
        path: &Path,
        unlock: &Unlock,
        now: SystemTime,
    ) -> Result<Self, KeystoreError> {
        region.map_or(Ok(()), check_region)?;
        let root = RootKey::new(Secret::random()?, crypto::random::id16()?);
        let slot = unlock::slot::sealed_root(&root, unlock.kind(), &unlock.load()?)?;
        let draft = file::Draft::keystore(path)?;
        let written = Store::create(draft.path()).and_then(|mut store| {
            store.write(|rows| {
                let mut writer = Writer::fresh(rows, &root, now.into());
                writer.meta.region = region.map(str::to_owned);
                unlock::slot::insert(&mut writer, slot, now.into())?;
                writer.finish()
            })?;
            store.close()
        });
        written.map_err(|error| draft.about_target(error))?;
        draft.publish()?;
        Self::assemble(path, root)?.check()
    }

    /// Opens a keystore and checks that its rows are those that were written.
    /// Errors: `Missing`, `NotAKeystore`, `NewerSchema`, `Locked`, `KeyFile`, `WrongUnlock`,
    /// `Tampered`, `RowSetTampered`; `StrangeWal` around one of them.
    pub fn open(path: &Path, unlock: &Unlock) -> Result<Self, KeystoreError> {
        let opened = Self::open_damaged(path, unlock).and_then(Self::check);
        let path = &file::real(path);
        opened.map_err(|found| {
            match wal_waits(path) && is_whole_without_wal(path, unlock, &found) {
                true => KeystoreError::StrangeWal { path: path.to_owned(), found: found.into() },
                false => found,
            }
        })
    }

    /// Opens a keystore without the check of all rows, to examine one that [`Keystore::open`] refuses,
    /// or to save what can be saved. Rows that are not authentic are still refused, one by one; missing
    /// rows are not noticed.
    /// Errors: as `open`, except those about rows.
    pub fn open_damaged(path: &Path, unlock: &Unlock) -> Result<Self, KeystoreError> {
        let (keystore, slots) = read_slots(path)?;
        // Outside of any transaction: a passphrase takes its time.
        let root = unlock::slot::unlock(keystore, &slots, unlock.kind(), &unlock.load()?)?;
        let wrong = || KeystoreError::WrongUnlock {
            path: path.to_owned(),
            tried: unlock.kind().as_str(),
            slots: unlock::slot::in_words(&slots),
        };
        let root = root.ok_or_else(wrong)?;
        audit::bring_along(path, &file::real(path), &root);
        Self::assemble(path, root)
    }

    /// What unlocks the keystore at `path`, in words, without unlocking it.
    /// Errors: as [`Keystore::open`], except those of unlocking.
    pub fn slots_in_words(path: &Path) -> Result<Vec<String>, KeystoreError> {
        read_slots(path).map(|(_, slots)| unlock::slot::in_words(&slots))
    }

    pub(in crate::keystore) fn assemble(name: &Path, root: RootKey) -> Result<Self, KeystoreError> {
        let path = &file::real(name);
        let (store, sharing) = Store::open_with_or_without_room(path, file::sharing(path)?)?;
        let version = store.version()?;
        let rows = RowSet::Unchecked;
        let store = Mutex::new(Opened { store, version, generation: 0, rows, noted: None });
        let inner = Inner {
            path: path.to_owned(),
            name: name.to_owned(),
            identity: file::identity(name)?,
            audit: Audit::new(path, &root, sharing),
            root,
            cache: Cache::default(),
            key_stores: KeyStores::default(),
            store,
            metrics: Metrics::default(),
            looked: Looked::never(),
            leases: Leases::default(),
        };
        Ok(Self { inner: Arc::new(inner), caller: Caller::owner(), account: None })
    }

    /// Refuses to repair a keystore that is whole without its WAL, which then does not belong to it.
    /// Errors: `StrangeWal`.
    pub(in crate::keystore) fn check_wal_belongs(&self) -> Result<(), KeystoreError> {
        if !self.lock().store.is_wal_doubtful() {
            return Ok(());
        }
        let Err(found) = self.read(|reader| reader.check_set()) else { return Ok(()) };
        let alone = Store::without_wal(self.path())
            .and_then(|mut store| store.read(|rows| Reader::new(rows, self.root()).check_set()));
        match alone {
            Ok(()) => {
                Err(KeystoreError::StrangeWal { path: self.path().into(), found: found.into() })
            }
            Err(_) => Ok(()),
        }
    }

    /// Looks at all rows before the first use, and finishes what a crash may have left undone.
    pub(in crate::keystore) fn check(self) -> Result<Self, KeystoreError> {
        let mut opened = self.lock();
        opened.generation = self.checked_generation(&mut opened)?;
        opened.rows = RowSet::Good;
        opened.store.trust_wal()?;
        drop(opened);
        self.scrub_if_due();
        Ok(self)
    }
}

fn read_slots(path: &Path) -> Result<([u8; 16], Vec<SlotRow>), KeystoreError> {
    let path = &file::real(path);
    file::inspect(path)?;
    // Checked now, and not when a running process opens its log: others open neither name.
    check_one_name(path)?;
    check_one_name(&audit::log_path(path))?;
    let (mut store, _) = Store::open_with_or_without_room(path, file::sharing(path)?)?;
    file::make_private(path)?;
    store.read(|rows| Ok((rows.meta()?.id, rows.slots()?)))
}

/// Is a keystore that cannot be used a whole one without its WAL? It is, if somebody put it beside the
/// WAL of another, or of a later state of itself.
fn is_whole_without_wal(path: &Path, unlock: &Unlock, found: &KeystoreError) -> bool {
    use KeystoreError as E;
    let by_wal = matches!(
        found,
        E::WrongUnlock { .. }
            | E::Tampered { .. }
            | E::RowSetTampered
            | E::Database { .. }
            | E::NotAKeystore(_)
    );
    by_wal && check_without_wal(path, unlock).unwrap_or(false)
}

fn check_without_wal(path: &Path, unlock: &Unlock) -> Result<bool, KeystoreError> {
    let mut store = Store::without_wal(path)?;
    let (keystore, slots) = store.read(|rows| Ok((rows.meta()?.id, rows.slots()?)))?;
    let root = unlock::slot::unlock(keystore, &slots, unlock.kind(), &unlock.load()?)?;
    let Some(root) = root else { return Ok(false) };
    store.read(|rows| Reader::new(rows, &root).check_set())?;
    Ok(true)
}
