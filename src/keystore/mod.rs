//! Rank 1: the embedded KMS.
//!
//! [`Keystore`] is a handle that acts for one [`Caller`]. It has one method per KMS verb, spelled
//! as in the AWS API; each asks whether the caller may (`access`), checks the key's state, acts,
//! is durable before it returns, and is written down (`operate`). Time is always an argument.
//! Imports of the crate: [`crate::crypto`] and [`crate::id`] only.
//!
//! **Keys protect keys**: an unlock slot (passphrase, key file, credential) seals the root key;
//! the root key seals one wrapping key per KMS key; that seals the key's materials; a material
//! wraps data keys. Invariants:
//!
//! - In the file, everything but random ids and unlock parameters is sealed, and authenticated
//!   together with its place; the set of rows is authenticated as a whole (`record`).
//! - What a deleted row held is overwritten in the file and gone from the WAL (`store`).
//! - Wrapping and unwrapping work from memory. A change by this process is felt at once, one by
//!   another process after [`Keystore::poll_changes`].
//! - Locks: the store's mutex first, then the cache's lock, and never a call out of this module
//!   under either. A process that forks must open its keystore afterwards.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

mod access;
pub mod audit;
mod custom_store;
mod engine;
mod error;
mod model;
mod ops;
pub mod policy;
mod records;
mod storage;
mod token;
mod unlock;

pub use access::decision::Verdict;
pub use access::table::{SuppliedKey, is_about_a_key, supplied_keys};
pub use error::access::AccessError;
pub use error::custom_store::KeyStoreError;
pub use error::replica::ReplicaError;
pub use error::{ExportProblem, InUse, KeyFileProblem, KeystoreError, Quota};
pub use model::action::Action;
pub use model::blob::{BLOB_OVERHEAD, CiphertextBlob, MAX_PLAINTEXT};
pub use model::caller::{ACCOUNT, Caller, Principal, Service, Source, group_arn};
pub use model::context;
pub use model::context::EncryptionContext;
pub use model::id::{AliasName, GrantId, KeyArn, KeyRef};
pub use model::spec::{
    EncryptionAlgorithm, ExpirationModel, GrantOperation, ImportState, ImportType, KeySpec,
    KeyUsage, MacAlgorithm, MessageType, Origin, SigningAlgorithm, UnknownName, WrappingAlgorithm,
    WrappingKeySpec,
};
pub use model::time::UnixTime;
pub use ops::access_keys::{
    AccessKeyEntry, AccessKeyLogin, AccessKeyStatus, CreateAccessKey, NewAccessKey,
};
pub use ops::aliases::AliasEntry;
pub use ops::crypto::asymmetric::{PublicKeyInfo, SharedSecret, Signed};
pub use ops::crypto::data_key::RandomDataKey;
pub use ops::crypto::data_key_pair::DataKeyPair;
pub use ops::crypto::encrypt::{Encrypted, ReEncryptDestination, ReEncryptSource, ReEncrypted};
pub use ops::crypto::mac::Mac;
pub use ops::crypto::symmetric::{DataKey, Decrypted, Plaintext};
pub use ops::custom_key_stores::{CreateKeyStore, UpdateKeyStore};
pub use ops::grants::{CreateGrant, CreatedGrant, GrantEntry, GrantFilter};
pub use ops::key_policies::{DEFAULT_POLICY_NAME, LockoutCheck, default_key_policy};
pub use ops::keys::deletion::{ClockTrust, Expired, ReferenceReport, ScheduledDeletion};
pub use ops::keys::import::{ImportRequest, ImportedMaterial};
pub use ops::keys::manage::CreateKey;
pub use ops::keys::rotation::{MaterialState, Rotation, RotationStatus};
pub use ops::principals::PrincipalEntry;
pub use ops::replicas::receive::{Received, Trust};
pub use ops::replicas::send::{ReplicaPolicy, ReplicaProperties};
pub use ops::replicas::{DEFAULT_REGION, MultiRegionConfiguration, RelatedKey};
pub use ops::verify::VerifyReport;
pub use ops::volumes::{AnchoredPolicy, KnownVolume, VolumeAnchor, VolumeNeed, VolumeScan};
pub use records::grant::Constraints;
pub use records::import_key::ImportParameters;
pub use records::key::{KeyMetadata, KeyState};
pub use records::key_store::{ConnectionErrorCode, ConnectionState, KeyStoreEntry, KeyStoreId};
pub use records::material::MaterialOrigin;
pub use records::transfer::{Transfer, TransferKey, TransferKind};
pub use token::{Pin, TokenError, TokenPlace};
pub use unlock::slot::{SlotId, SlotInfo, SlotKind, TokenSlot};
pub use unlock::{CREDENTIAL, PIN_CREDENTIAL, Unlock, create_key_file};

use crate::keystore::audit::Audit;
use crate::keystore::custom_store::link::KeyStores;
use crate::keystore::engine::cache::{Cache, LiveKey};
use crate::keystore::engine::metrics::Metrics;
use crate::keystore::ops::aliases::AliasRecord;
use crate::keystore::ops::replicas;
use crate::keystore::records::key::{self, KeyRecord};
use crate::keystore::records::material;
use crate::keystore::storage::file;
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::{SlotRow, Store};
use crate::keystore::storage::sealed::{Reader, Writer};
use crate::keystore::unlock::slot;

use crate::crypto::{self, Secret};
use crate::id::{KeyId, MaterialId};

/// An unlocked keystore, acting for a caller: at first for its owner, who unlocked it.
///
/// Several threads may use it, and several processes the same file. Cheap to copy for another
/// caller by [`Keystore::acting_for`].
pub struct Keystore {
    inner: Arc<Inner>,
    caller: Caller,
}

/// What all handles of one opening share.
struct Inner {
    path: PathBuf,
    /// Which file `path` was when it was opened.
    identity: file::Identity,
    root: RootKey,
    cache: Cache,
    key_stores: KeyStores,
    store: Mutex<Opened>,
    audit: Audit,
    metrics: Metrics,
}

/// The store, and what was last seen of it.
struct Opened {
    store: Store,
    /// The version of its contents that the cache was filled from.
    version: i64,
    /// The transactions that had been made when its rows were last checked.
    generation: u64,
    rows: RowSet,
    /// When the audit log's place was last noted in the store.
    noted: Option<Instant>,
}

/// Are the rows those that were written?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowSet {
    /// They were when they were last looked at.
    Good,
    /// They were not: no key is taken from them.
    Bad,
    /// Nobody looks: [`Keystore::open_damaged`].
    Unchecked,
}

impl std::fmt::Debug for Keystore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystore").field("path", &self.inner.path).finish_non_exhaustive()
    }
}

impl Keystore {
    /// Makes a keystore without keys, with one unlock slot. The file has mode 0600, missing
    /// directories get 0700; it appears under its name only when it is complete and durable.
    /// Errors: `Exists`, `KeyFile`, `Io`, `Database`.
    pub fn create(path: &Path, unlock: &Unlock, now: SystemTime) -> Result<Self, KeystoreError> {
        Self::create_in(None, path, unlock, now)
    }

    /// As [`Keystore::create`], with a name for the Region that the keystore is: multi-Region keys
    /// are replicated between keystores of different Regions.
    /// Errors: as there; `Validation` for a name that none has.
    pub fn create_in(
        region: Option<&str>,
        path: &Path,
        unlock: &Unlock,
        now: SystemTime,
    ) -> Result<Self, KeystoreError> {
        region.map_or(Ok(()), replicas::check_region)?;
        let root = RootKey::new(Secret::random()?, crypto::random::id16()?);
        let slot = slot::sealed_root(&root, unlock.kind(), &unlock.load()?)?;
        let draft = file::Draft::begin(path)?;
        let written = Store::create(draft.path()).and_then(|mut store| {
            store.write(|rows| {
                let mut writer = Writer::fresh(rows, &root, now.into());
                writer.meta.region = region.map(str::to_owned);
                slot::insert(&mut writer, slot, now.into())?;
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
    /// `Tampered`, `RowSetTampered`.
    pub fn open(path: &Path, unlock: &Unlock) -> Result<Self, KeystoreError> {
        Self::open_damaged(path, unlock)?.check()
    }

    /// Opens a keystore without the check of all rows, to examine one that [`Keystore::open`]
    /// refuses, or to save what can be saved. Rows that do not authenticate still refuse, one by
    /// one; that rows are missing is not noticed.
    /// Errors: as `open`, except those about rows.
    pub fn open_damaged(path: &Path, unlock: &Unlock) -> Result<Self, KeystoreError> {
        let (keystore, slots) = read_slots(path)?;
        // Outside of any transaction: a passphrase takes its time.
        let root = slot::unlock(keystore, &slots, unlock.kind(), &unlock.load()?)?;
        let wrong = || KeystoreError::WrongUnlock {
            path: path.to_owned(),
            tried: unlock.kind().as_str(),
            slots: slot::in_words(&slots),
        };
        Self::assemble(path, root.ok_or_else(wrong)?)
    }

    /// What unlocks the keystore at `path`, in words, without unlocking it.
    /// Errors: as [`Keystore::open`], except those of unlocking.
    pub fn slots_in_words(path: &Path) -> Result<Vec<String>, KeystoreError> {
        read_slots(path).map(|(_, slots)| slot::in_words(&slots))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Notices what other processes changed since the last call. If something was, everything
    /// cached is dropped, the rows are checked as at open, and `true` returned. Takes
    /// microseconds when nothing was changed.
    /// Errors: `Locked`, `Database`. Rows that were tampered with are no error here: from then on
    /// every key refuses with `RowSetTampered`.
    pub fn poll_changes(&self) -> Result<bool, KeystoreError> {
        self.note_audit_if_due();
        let mut opened = self.lock();
        let version = opened.store.version()?;
        if version == opened.version {
            return Ok(false);
        }
        self.inner.cache.clear();
        if opened.rows != RowSet::Unchecked {
            self.note_rows(&mut opened)?;
        }
        // Last: what failed above is tried again at the next call.
        opened.version = version;
        Ok(true)
    }

    /// Checks that the file still has its name. One that was moved away, or over which another was
    /// put, would go on for ever as it was: whoever disables a key does it in the file of that name.
    /// Errors: `Missing`, `Io`.
    pub fn check_place(&self) -> Result<(), KeystoreError> {
        let path = &self.inner.path;
        if file::identity(path)? == self.inner.identity {
            return Ok(());
        }
        let other = std::io::Error::other("another file has its name now: open that one");
        Err(file::io_error(path, "go on with", other))
    }

    /// Drops, and wipes, all keys and rules in memory: the next use of one reads the file again.
    pub fn forget_cached(&self) {
        let _store = self.lock();
        self.inner.cache.clear();
    }

    /// A count that goes up whenever something may have changed, by this process or, once it was
    /// noticed, by another: what was derived from keys, policies and grants is stale then.
    pub fn changes(&self) -> u64 {
        self.inner.cache.changes()
    }

    /// The state of a key, from memory after the first call.
    /// Errors: `KeyNotFound`.
    pub fn key_state(&self, key: KeyId) -> Result<KeyState, KeystoreError> {
        let now = self.caller.time().into();
        self.live(key).map(|live| live.state(now))
    }

    /// The material that new ciphertexts of the key are made with.
    /// Errors: `KeyNotFound`; `InvalidState` while it waits for its first material.
    pub fn current_material(&self, key: KeyId) -> Result<MaterialId, KeystoreError> {
        let record = &self.live(key)?.record;
        let state = KeyState::PendingImport;
        record.current_material().ok_or(KeystoreError::InvalidState { key, state })
    }

    /// The key that is meant, which exists; from memory after the first call.
    /// Errors: `KeyNotFound`, `AliasNotFound`.
    pub fn resolve(&self, key: &KeyRef) -> Result<KeyId, KeystoreError> {
        self.live(self.key_named(key)?).map(|live| live.id)
    }

    /// The key that is meant, which may not exist if it is named by its id.
    fn key_named(&self, key: &KeyRef) -> Result<KeyId, KeystoreError> {
        let alias = match key {
            KeyRef::Id(id) => return Ok(*id),
            KeyRef::Alias(alias) => alias,
        };
        if let Some(id) = self.inner.cache.alias(alias) {
            return Ok(id);
        }
        let mut opened = self.lock();
        let id = self.read_locked(&mut opened, |reader| AliasRecord::target(reader, alias))?;
        self.inner.cache.put_alias(alias, id);
        Ok(id)
    }

    /// A key ready for use, with its material if its state allows that.
    fn live(&self, key: KeyId) -> Result<Arc<LiveKey>, KeystoreError> {
        let cached = self.inner.cache.key(key);
        self.inner.metrics.looked_up(&cached);
        if let Some(live) = cached {
            return Ok(live);
        }
        let mut opened = self.lock();
        let live = self.read_locked(&mut opened, |reader| {
            let record = KeyRecord::find(reader, key)?;
            let usable = key::permit(key::Operation::Crypto, key, record.state).is_ok();
            let materials =
                if usable { material::load(reader, key, record.spec)? } else { Vec::new() };
            let link = |store| self.inner.key_stores.link(reader, store);
            let link = record.key_store.map(link).transpose()?;
            Ok(Arc::new(LiveKey::new(key, record, materials, link)))
        })?;
        if opened.rows == RowSet::Bad {
            return Err(KeystoreError::RowSetTampered);
        }
        self.inner.cache.put_key(&live);
        Ok(live)
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.read_locked(&mut self.lock(), work)
    }

    fn read_locked<T>(
        &self,
        opened: &mut Opened,
        work: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        opened.store.read(|rows| work(&Reader::new(rows, &self.inner.root)))
    }

    /// One durable transaction. The cache is emptied before anybody else can fill it.
    fn write<T>(
        &self,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let mut opened = self.lock();
        let done = opened.store.write(|rows| {
            let mut writer = Writer::begin(rows, &self.inner.root)?;
            let done = work(&mut writer)?;
            // For nothing, along with whatever else is written.
            self.inner.audit.note(&mut writer.meta.audit);
            self.inner.audit.learn(&writer.meta.audit);
            writer.finish()?;
            Ok(done)
        });
        self.inner.cache.clear();
        done
    }

    /// Finishes what a deletion began: the deleted bytes leave the file and the WAL. If another
    /// process is in the way it stays due, and is tried again at the next opportunity.
    fn scrub_if_due(&self) -> Result<(), KeystoreError> {
        let before = self.read(|reader| reader.meta())?;
        if !before.scrub_due {
            return Ok(());
        }
        if !self.lock().store.scrub()? {
            log::warn!("deleted rows stay in the keystore's WAL until other users release it");
            return Ok(());
        }
        self.write(|writer| {
            // Rows that somebody else deleted since are not scrubbed yet.
            writer.meta.scrub_due = writer.meta.generation != before.generation;
            Ok(())
        })
    }

    fn assemble(path: &Path, root: RootKey) -> Result<Self, KeystoreError> {
        let (store, sharing) = Store::open_with_or_without_room(path, file::sharing(path)?)?;
        let version = store.version()?;
        let rows = RowSet::Unchecked;
        let store = Mutex::new(Opened { store, version, generation: 0, rows, noted: None });
        let inner = Inner {
            path: path.to_owned(),
            identity: file::identity(path)?,
            audit: Audit::new(path, &root, sharing),
            root,
            cache: Cache::default(),
            key_stores: KeyStores::default(),
            store,
            metrics: Metrics::default(),
        };
        Ok(Self { inner: Arc::new(inner), caller: Caller::owner() })
    }

    /// Looks at all rows before the first use, and finishes what a crash may have left undone.
    fn check(self) -> Result<Self, KeystoreError> {
        let mut opened = self.lock();
        opened.generation = self.checked_generation(&mut opened)?;
        opened.rows = RowSet::Good;
        drop(opened);
        self.scrub_if_due()?;
        Ok(self)
    }

    /// Notes whether the rows are those that were written, and not an older state of them.
    fn note_rows(&self, opened: &mut Opened) -> Result<(), KeystoreError> {
        let found = match self.checked_generation(opened) {
            Err(KeystoreError::RowSetTampered | KeystoreError::Tampered { .. }) => None,
            generation => Some(generation?),
        };
        match found.filter(|generation| *generation >= opened.generation) {
            Some(generation) => {
                (opened.rows, opened.generation) = (RowSet::Good, generation);
            }
            None => {
                log::error!("something else than kmsfs changed the keystore: its keys refuse");
                opened.rows = RowSet::Bad;
            }
        }
        Ok(())
    }

    fn checked_generation(&self, opened: &mut Opened) -> Result<u64, KeystoreError> {
        self.read_locked(opened, |reader| {
            reader.check_set()?;
            let meta = reader.meta()?;
            self.inner.audit.learn(&meta.audit);
            Ok(meta.generation)
        })
    }

    /// A panic elsewhere leaves no transaction open, so its poison means nothing here.
    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.inner.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_slots(path: &Path) -> Result<([u8; 16], Vec<SlotRow>), KeystoreError> {
    file::inspect(path)?;
    let (mut store, _) = Store::open_with_or_without_room(path, file::sharing(path)?)?;
    file::make_private(path)?;
    store.read(|rows| Ok((rows.meta()?.id, rows.slots()?)))
}
