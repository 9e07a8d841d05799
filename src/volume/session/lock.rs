//! Who holds the vault.
//!
//! The vault's directory and `.kmsfs/lock` are held with `flock` from before the first change until
//! after the last (R2g). Whoever writes to the vault can put another file in the place of the lock; the
//! directory is what both of two daemons would have to open. A filesystem that locks no directories
//! (NFS) leaves the file alone, which is also what earlier builds hold.
//!
//! The lock file is empty: whoever sees the vault learns nothing of the machine, and nobody believes
//! what the file holds. What a session that changes the vault writes down is in `ledger`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat};
use rustix::io::Errno;

use super::ledger::Ledger;
use crate::envelope::{Counted, META_DIR, SessionWord};
use crate::volume::backing::beneath::{self, Name};
use crate::volume::backing::own_file;
use crate::volume::journal::files;
use crate::volume::model::clock;
use crate::volume::model::error::{Result, VolumeError};

/// The directory of what belongs to the volume as a whole.
pub(in crate::volume) const META: Name<'static> = Name::literal(META_DIR);
const LOCK: Name<'static> = Name::literal("lock");
const NEW_LOCK: Name<'static> = Name::literal("lock.new");
const EXCLUSIVE: FlockOperation = FlockOperation::NonBlockingLockExclusive;
const SESSION: Name<'static> = Name::literal("session");
/// The most bytes that the record of an old volume has: it names the last crashes one by one.
const RECORD_MAX: usize = 16 * 1024;
/// While somebody else makes and removes it.
const ATTEMPTS: usize = 8;
const NOT_A_LOCK: VolumeError = VolumeError::Tampered("the vault's lock");

/// The right to use a vault, and to change it if that was asked for.
#[derive(Debug)]
pub struct Session {
    meta: OwnedFd,
    /// Held while this is there.
    _locks: Vec<OwnedFd>,
    /// Where a session that changes the vault is written down.
    ledger: Option<Arc<Ledger>>,
    /// What a person should know of the vault as it was found.
    notice: Option<&'static str>,
    /// The session has a page journal.
    journal: Option<SessionWord>,
}

impl Session {
    /// Takes the vault whose root directory is `root`.
    ///
    /// # Errors
    /// `InUse` when another process holds it; those of the backing filesystem.
    pub(in crate::volume) fn begin(root: impl AsFd, change: bool) -> Result<Self> {
        // A reader keeps writers out, and may share the vault with other readers.
        let how = if change { EXCLUSIVE } else { FlockOperation::NonBlockingLockShared };
        let mut locks = vec![hold_root(&root, how)?];
        let meta = open_meta(root)?;
        if change {
            hold_to_change(&meta, &mut locks)?;
        } else {
            match beneath::open_file(&meta, LOCK, OFlags::RDONLY) {
                Ok(lock) => {
                    hold(&lock, how)?;
                    locks.push(lock);
                }
                // The vault is on a medium that nobody writes to.
                Err(Errno::NOENT) => {}
                Err(Errno::STALE | Errno::LOOP) => return Err(NOT_A_LOCK),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { meta, _locks: locks, ledger: None, notice: None, journal: None })
    }

    /// Keeps what a person should know of the vault as it was found.
    pub(in crate::volume) fn set_notice(&mut self, notice: Option<&'static str>) {
        self.notice = notice;
    }

    /// What a person should know of the vault as it was found.
    pub(in crate::volume) fn notice(&self) -> Option<&'static str> {
        self.notice
    }

    /// The session is written down in `ledger`: from here on the vault may change.
    pub(in crate::volume) fn write_down(&mut self, ledger: Arc<Ledger>) {
        self.ledger = Some(ledger);
    }

    /// What a volume from before the state record says of its sessions.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn counted(&self) -> Result<Option<Counted>> {
        let read = own_file::read(&self.meta, SESSION, (RECORD_MAX, "record of sessions"));
        Ok(read?.map(|bytes| Counted::parse(&bytes, clock::now_nanos())))
    }

    /// Removes what [`Self::counted`] read: the state record has it now.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn forget_counted(&self) -> Result<()> {
        match own_file::remove(&self.meta, SESSION) {
            Ok(()) => Ok(rustix::fs::fsync(&self.meta)?),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is written down of the session, if it changes the vault.
    pub(in crate::volume) fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }

    /// The session of this word has a page journal.
    pub(in crate::volume) fn set_journal(&mut self, word: SessionWord) {
        self.journal = Some(word);
    }

    /// Ends the session cleanly: everything is durable, so nobody needs its page journal any more, and
    /// then the record says so. A journal that a crash leaves is a stray one, and harms nobody.
    ///
    /// # Errors
    /// Those of the backing filesystem: the next session then finds this one open.
    pub(in crate::volume) fn end(&mut self) -> Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        rustix::fs::syncfs(&self.meta)?;
        if let Some(word) = self.journal.take() {
            files::remove(&self.meta, word);
        }
        ledger.end()?;
        self.ledger = None;
        Ok(())
    }

    /// The directory of what belongs to the volume as a whole.
    pub(in crate::volume) fn meta(&self) -> &OwnedFd {
        &self.meta
    }
}

/// True when nobody holds the vault in any way, or it is out of sight.
pub fn is_free(root: impl AsFd) -> bool {
    if hold_root(&root, EXCLUSIVE).is_err() {
        return false;
    }
    let lock = open_meta(root).and_then(|meta| Ok(beneath::open_file(meta, LOCK, OFlags::RDONLY)?));
    lock.map_or(true, |lock| flock(&lock, EXCLUSIVE).is_ok())
}

/// The directory of what belongs to the volume as a whole.
///
/// # Errors
/// `Io(NOENT)`, `Io(NOTDIR)` for what is no vault.
pub(in crate::volume) fn open_meta(root: impl AsFd) -> Result<OwnedFd> {
    match beneath::open_dir(root, META) {
        // A link that somebody put there leads to no vault of ours.
        Err(Errno::LOOP) => Err(Errno::NOTDIR.into()),
        other => Ok(other?),
    }
}

/// Nothing is written to it, so it may have further names: snapshots by hard links give it some.
fn open_lock(meta: &OwnedFd) -> Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        match beneath::create_file(meta, LOCK, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        let held = match beneath::hold(meta, LOCK) {
            // Gone again.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if !FileType::from_raw_mode(held.found().st_mode).is_file() {
            return Err(NOT_A_LOCK);
        }
        return Ok(held.open_file(OFlags::RDWR)?);
    }
    Err(NOT_A_LOCK)
}

/// Holds the vault's own directory, through a descriptor of its own.
fn hold_root(root: impl AsFd, how: FlockOperation) -> Result<OwnedFd> {
    let root = beneath::reopen_dir(root)?;
    match flock(&root, how) {
        Err(Errno::WOULDBLOCK) => Err(VolumeError::InUse),
        // Not on this filesystem: the lock file alone has to do.
        _ => Ok(root),
    }
}

/// Holds the lock file. Earlier builds wrote into it who they were, and others may have put somebody's
/// file there: a file that is not empty is replaced, not written to, and so is one with another name,
/// by which others lock it. The replaced file is held as well, for an earlier build that has it open
/// already.
fn hold_to_change(meta: &OwnedFd, locks: &mut Vec<OwnedFd>) -> Result<()> {
    let lock = open_lock(meta)?;
    hold(&lock, EXCLUSIVE)?;
    let found = fstat(&lock)?;
    let is_shared = found.st_nlink > 1;
    if !is_shared {
        locks.push(lock);
    }
    if is_shared || found.st_size > 0 {
        let fresh = own_file::fresh(meta, NEW_LOCK)?;
        hold(&fresh, EXCLUSIVE)?;
        beneath::rename((meta, NEW_LOCK), (meta, LOCK), RenameFlags::empty())?;
        locks.push(fresh);
    }
    Ok(())
}

fn hold(lock: &OwnedFd, how: FlockOperation) -> Result<()> {
    flock(lock, how).map_err(|error| match error {
        Errno::WOULDBLOCK => VolumeError::InUse,
        other => other.into(),
    })
}
