//! The log as a file that several processes append to. Each append looks whether the log still has
//! what this process and the keystore's own file know of it (`known`, `tail`).

use std::borrow::Cow;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard};

use super::checkpoint::{Checkpoint, Statement};
use super::event::{Event, EventTime};
use super::file::{AuditFile, Rows};
use super::keys::AuditKeys;
use super::known::KnownPositions;
use super::last_use::LastUses;
use super::tail::Tail;
use crate::keystore::error::KeystoreError;
use crate::keystore::storage::database::Sharing;

/// The log of one keystore, in this process.
/// Locks: `opened` first, then `known`, which is never held while the file is used.
pub(super) struct Log {
    path: PathBuf,
    sharing: Sharing,
    pub(super) keys: AuditKeys,
    opened: Mutex<Opened>,
    known: Mutex<KnownPositions>,
}

#[derive(Default)]
struct Opened {
    file: Option<AuditFile>,
    /// Device and inode of `file`.
    inode: (u64, u64),
}

impl Log {
    pub(super) fn new(path: PathBuf, sharing: Sharing, keys: AuditKeys) -> Self {
        Self { path, sharing, keys, opened: Mutex::default(), known: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What this process knows of the log.
    pub(super) fn known(&self) -> MutexGuard<'_, KnownPositions> {
        self.known.lock()
    }

    /// Appends events, durably and in order, behind whatever other processes wrote, and notes the
    /// uses of keys.
    /// Errors: `Database`, `Locked`, `Io`: nothing was written then.
    pub(super) fn append(
        &self,
        events: &[Cow<'_, Event>],
        uses: &LastUses,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        let mut opened = self.lock();
        let done = self.ready(&mut opened, now).and_then(|()| {
            let file = opened.file.as_mut().expect("it was opened just now");
            self.extend(file, now, |tail, rows| {
                events.iter().try_for_each(|event| tail.push(event))?;
                uses.store(&self.keys, rows)?;
                tail.checkpoint_if_due(now.into())
            })
        });
        match &done {
            Ok(Some(checkpoint)) => log::info!("audit checkpoint {checkpoint}"),
            Ok(None) => {}
            // Whatever is wrong with it, the next attempt opens it again.
            Err(_) => opened.file = None,
        }
        done.map(drop)
    }

    /// Signs the position where the log ends now, so that what was written is bound to the end.
    /// `None` if there is no log yet.
    pub(super) fn checkpoint(&self, now: SystemTime) -> Result<Option<Checkpoint>, KeystoreError> {
        self.with(|file| self.extend(file, now, |tail, _| tail.checkpoint(now.into())))
            .map(Option::flatten)
    }

    /// Looks whether the log has what is known of it.
    pub(super) fn compare(&self, now: SystemTime) -> Result<(), KeystoreError> {
        self.with(|file| self.extend(file, now, |_, _| Ok(None))).map(drop)
    }

    /// Runs `work` on the file, `None` if there is no log yet.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut AuditFile) -> Result<T, KeystoreError>,
    ) -> Result<Option<T>, KeystoreError> {
        let mut opened = self.lock();
        self.open(&mut opened)?;
        opened.file.as_mut().map(work).transpose()
    }

    /// Runs `work` at the end of the log, and learns from it once it is durable.
    fn extend(
        &self,
        file: &mut AuditFile,
        now: SystemTime,
        work: impl FnOnce(&mut Tail<'_>, &Rows<'_>) -> Result<Option<Checkpoint>, KeystoreError>,
    ) -> Result<Option<Checkpoint>, KeystoreError> {
        let asked = self.known().clone();
        let (lost, head, made) = file.write(|rows| {
            let mut tail = Tail::find(&self.keys, rows, &asked, now)?;
            let made = work(&mut tail, rows)?;
            Ok((tail.lost, tail.head, made))
        })?;
        let mut known = self.known();
        known.found(&asked, &lost, head);
        if let Some(checkpoint) = &made {
            known.signed(checkpoint.position);
        }
        Ok(made)
    }

    /// The file is open, and is the one that the name leads to. Made if it is missing.
    fn ready(&self, opened: &mut Opened, now: SystemTime) -> Result<(), KeystoreError> {
        self.open(opened)?;
        if opened.file.is_some() {
            return Ok(());
        }
        let anchor = self.keys.sign(Statement::Anchor, self.keys.genesis(), now.into());
        let since = self.keys.seal_last_use(&[0; 16], EventTime::from(now).to_string().as_bytes());
        match AuditFile::create(&self.path, &anchor, &since?) {
            // Another process was faster.
            Err(KeystoreError::Exists(_)) => {}
            made => made?,
        }
        self.open(opened)?;
        match opened.file {
            Some(_) => Ok(()),
            None => Err(KeystoreError::Missing(self.path.clone())),
        }
    }

    fn open(&self, opened: &mut Opened) -> Result<(), KeystoreError> {
        let inode = fs::metadata(&self.path).map_or((0, 0), |there| (there.dev(), there.ino()));
        if opened.file.is_none() || opened.inode != inode {
            opened.file = None;
            opened.file = AuditFile::open(&self.path, self.sharing)?;
            opened.inode = inode;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock()
    }
}
