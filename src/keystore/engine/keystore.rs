//! The open keystore: one file, one root key, one cache, shared by all handles.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::keystore::access::rules::{RuleSource, Subject};
use crate::keystore::audit::Audit;
use crate::keystore::custom_store::link::KeyStores;
use crate::keystore::engine::cache::{Cache, Looked};
use crate::keystore::engine::metrics::Metrics;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::caller::Caller;
use crate::keystore::storage::file;
use crate::keystore::storage::lease::Leases;
use crate::keystore::storage::root::RootKey;
use crate::keystore::storage::rows::Store;
use crate::keystore::storage::sealed::{Reader, Writer};

/// An unlocked keystore, acting for a caller: at first for its owner, who unlocked it.
///
/// Several threads may use it, and several processes the same file. Cheap to copy for another
/// caller by [`Keystore::acting_for`].
pub struct Keystore {
    pub(super) inner: Arc<Inner>,
    pub(super) caller: Caller,
    /// The keystore with the policies of the account, if that is another.
    pub(super) account: Option<Arc<Keystore>>,
}

/// What all handles of one opening share.
pub(super) struct Inner {
    /// The file itself: the audit log and the WAL lie beside it, whatever links lead to it.
    pub(super) path: PathBuf,
    /// The name that it was opened by.
    pub(super) name: PathBuf,
    /// Which file `name` was when it was opened.
    pub(super) identity: file::Identity,
    pub(super) root: RootKey,
    pub(super) cache: Cache,
    pub(super) key_stores: KeyStores,
    pub(super) store: Mutex<Opened>,
    pub(super) audit: Audit,
    pub(super) metrics: Metrics,
    pub(super) looked: Looked,
    pub(super) leases: Leases,
}

/// The store, and its last known state.
pub(super) struct Opened {
    pub(super) store: Store,
    /// The version of its contents that the cache was filled from.
    pub(super) version: i64,
    /// The transactions that had been made when its rows were last checked.
    pub(super) generation: u64,
    pub(super) rows: RowSet,
    /// When the audit log's position was last noted in the store.
    pub(super) noted: Option<Instant>,
}

/// Are the rows those that were written?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowSet {
    /// They were, at the last check.
    Good,
    /// They were not: no key is used.
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
    /// The file, behind all symbolic links.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The same keystore for another caller.
    pub fn acting_for(&self, caller: Caller) -> Self {
        Self { inner: self.inner.clone(), caller, account: self.account.clone() }
    }

    /// The same keystore as a part of the account whose principals are in `account`: policies that
    /// these have there count here as well.
    pub fn in_account_of(self, account: &Self) -> Self {
        let account = account.acting_for(Caller::owner());
        Self { account: Some(Arc::new(account)), ..self }
    }

    /// The caller that this handle acts for.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The caller, for decisions.
    pub(in crate::keystore) fn subject(&self) -> Subject<'_> {
        let account = self.account.as_deref().map(|account| account as &dyn RuleSource);
        Subject { caller: &self.caller, account }
    }

    pub(in crate::keystore) fn root(&self) -> &RootKey {
        &self.inner.root
    }

    pub(in crate::keystore) fn audit(&self) -> &Audit {
        &self.inner.audit
    }

    pub(in crate::keystore) fn key_stores(&self) -> &KeyStores {
        &self.inner.key_stores
    }

    pub(in crate::keystore) fn leases(&self) -> &Leases {
        &self.inner.leases
    }

    pub(in crate::keystore) fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    pub(in crate::keystore) fn read<T>(
        &self,
        work: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        self.read_locked(&mut self.lock(), work)
    }

    pub(super) fn read_locked<T>(
        &self,
        opened: &mut Opened,
        work: impl FnOnce(&Reader<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        opened.store.read(|rows| work(&Reader::new(rows, &self.inner.root)))
    }

    /// One durable transaction. The cache is emptied before anybody else can fill it. Keys, their
    /// material and slots are in the file itself when this returns, not only in its WAL, unless
    /// somebody reads an older state just then.
    pub(in crate::keystore) fn write<T>(
        &self,
        work: impl FnOnce(&mut Writer<'_>) -> Result<T, KeystoreError>,
    ) -> Result<T, KeystoreError> {
        let mut opened = self.lock();
        let done = opened.store.write(|rows| {
            let mut writer = Writer::begin(rows, &self.inner.root)?;
            let done = work(&mut writer)?;
            // Costs nothing, along with whatever else is written.
            self.inner.audit.note(&mut writer.meta.audit);
            self.inner.audit.learn(&writer.meta.audit);
            let lasting = writer.lasting;
            writer.finish()?;
            Ok((done, lasting))
        });
        self.inner.cache.clear();
        let (done, lasting) = done?;
        if lasting {
            opened.store.checkpoint();
        }
        Ok(done)
    }

    /// Finishes what a deletion began: the deleted bytes leave the file and the WAL. The deletion
    /// itself is durable by then, so a failure here is never its error: the scrub stays due, and every
    /// opening, deletion and maintenance tries again.
    pub(in crate::keystore) fn scrub_if_due(&self) {
        let Err(error) = self.try_scrub() else { return };
        let why = match error {
            // Its own words say that nothing was changed.
            KeystoreError::NoRoom { .. } => "its filesystem is full or read-only".to_owned(),
            error => error.to_string(),
        };
        log::warn!(
            "what was deleted is gone, but its bytes stay in the keystore's file, and copies of it, \
             until kmsfs next opens or changes it with room to rewrite it: {why}"
        );
    }

    fn try_scrub(&self) -> Result<(), KeystoreError> {
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

    /// A panic elsewhere leaves no transaction open.
    pub(super) fn lock(&self) -> MutexGuard<'_, Opened> {
        self.inner.store.lock()
    }
}
