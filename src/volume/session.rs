//! Who holds the vault, and what is known of crashes.
//!
//! `.kmsfs/lock` is held with `flock` from before the first change until after the last (R2g). It is
//! empty: whoever sees the vault learns nothing of the machine, and nobody believes what stands in
//! it. `.kmsfs/session` says durably, before the first write of a session, that
//! one is open; a session that finds it still open knows of a crash (R5).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, ftruncate};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::beneath::{self, Name};
use super::error::{Result, VolumeError};
use super::{clock, own_file};
use crate::envelope::META_DIR;

/// The directory of what belongs to the volume as a whole.
pub(super) const META: Name<'static> = Name::literal(META_DIR);
const LOCK: Name<'static> = Name::literal("lock");
const SESSION: Name<'static> = Name::literal("session");
/// Bytes that the record has at most: it names the last crashes one by one.
const RECORD_MAX: usize = 16 * 1024;
const NOT_A_LOCK: VolumeError = VolumeError::Tampered("the vault's lock");
/// Crashes remembered one by one; older ones are merged.
const CRASHES: usize = 16;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Record {
    /// The number of the last session, counted from 1.
    #[serde(default)]
    number: i64,
    /// The number of the last one that ended in a crash; 0 for none.
    #[serde(default)]
    crashed: i64,
    /// When the open session began, in nanoseconds since 1970.
    open_since: Option<i64>,
    /// Sessions that ended in a crash: from their begin to the moment that was noticed.
    crashes: Vec<(i64, i64)>,
}

/// The right to change a vault.
#[derive(Debug)]
pub struct Session {
    meta: OwnedFd,
    /// Held while this is there.
    _lock: OwnedFd,
    record: Record,
    open: bool,
}

impl Session {
    /// Takes the vault whose root directory is `root`.
    ///
    /// With `change`, says durably that a session is open, after one sync of the filesystem: from
    /// here on the newest copies of everything are the durable ones (R2d).
    ///
    /// # Errors
    /// `InUse` when another process holds it; those of the backing filesystem.
    pub(super) fn begin(root: impl AsFd, change: bool) -> Result<Self> {
        let meta = open_meta(root)?;
        let (lock, record) = if change {
            let lock = open_lock(&meta)?;
            hold(&lock, FlockOperation::NonBlockingLockExclusive)?;
            // Earlier builds wrote who they were.
            ftruncate(&lock, 0)?;
            (lock, read_record(&meta))
        } else {
            // A reader keeps writers out, and may share the vault with other readers. Where even
            // the lock file is missing, the vault is on a medium that nobody writes to.
            let lock = match beneath::open_file(&meta, LOCK, OFlags::RDONLY) {
                Ok(lock) => {
                    hold(&lock, FlockOperation::NonBlockingLockShared)?;
                    lock
                }
                Err(Errno::NOENT) => rustix::io::fcntl_dupfd_cloexec(&meta, 0)?,
                Err(Errno::STALE | Errno::LOOP) => return Err(NOT_A_LOCK),
                Err(error) => return Err(error.into()),
            };
            (lock, read_record(&meta))
        };
        let mut session = Self { meta, _lock: lock, record, open: false };
        if change {
            session.open()?;
        } else if let Some(since) = session.record.open_since {
            session.record.crashed = session.record.number;
            session.record.crashes.push((since, clock::now_nanos()));
        }
        Ok(session)
    }

    fn open(&mut self) -> Result<()> {
        let now = clock::now_nanos();
        if let Some(since) = self.record.open_since {
            log::warn!(
                "the last session did not end cleanly: sizes of files that it changed are checked"
            );
            self.record.crashed = self.record.number;
            self.record.crashes.push((since, now));
            while let [(from, _), (_, to), ..] = self.record.crashes[..]
                && self.record.crashes.len() > CRASHES
            {
                self.record.crashes.splice(..2, [(from, to)]);
            }
        }
        rustix::fs::syncfs(&self.meta)?;
        self.record.number += 1;
        self.record.open_since = Some(now);
        self.save()?;
        self.open = true;
        Ok(())
    }

    /// The number of this session, and of the last one that ended in a crash (0 for none).
    pub(super) fn numbers(&self) -> (i64, i64) {
        (self.record.number, self.record.crashed)
    }

    /// The end of the last crash, in nanoseconds since 1970; 0 for none.
    pub(super) fn last_crash(&self) -> i64 {
        self.record.crashes.iter().map(|(_, to)| *to).max().unwrap_or(0)
    }

    /// True if a file with this backing ctime may have been hit by a crash: its size is a hint.
    pub(super) fn is_suspect(&self, ctime: i64) -> bool {
        self.record.crashes.iter().any(|(from, to)| (*from..=*to).contains(&ctime))
    }

    /// Every file was checked and repaired: crashes so far are history.
    pub(super) fn forget_crashes(&mut self) -> Result<()> {
        self.record.crashes.clear();
        self.save()
    }

    /// Ends the session cleanly: everything is durable, then the mark goes.
    pub(super) fn end(&mut self) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        rustix::fs::syncfs(&self.meta)?;
        self.record.open_since = None;
        self.save()?;
        self.open = false;
        Ok(())
    }

    /// The directory of what belongs to the volume as a whole.
    pub(super) fn meta(&self) -> &OwnedFd {
        &self.meta
    }

    fn save(&self) -> Result<()> {
        let bytes = serde_json::to_vec(&self.record).unwrap_or_default();
        Ok(own_file::replace(&self.meta, SESSION, &bytes)?)
    }
}

/// True when nobody holds the vault in any way, or it is out of sight.
pub fn is_free(root: impl AsFd) -> bool {
    let lock = open_meta(root).and_then(|meta| Ok(beneath::open_file(meta, LOCK, OFlags::RDONLY)?));
    lock.map_or(true, |lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// The directory of what belongs to the volume as a whole.
///
/// # Errors
/// `Io(NOENT)`, `Io(NOTDIR)` for what is no vault.
pub(super) fn open_meta(root: impl AsFd) -> Result<OwnedFd> {
    match beneath::open_dir(root, META) {
        // A link that somebody put there leads to no vault of ours.
        Err(Errno::LOOP) => Err(Errno::NOTDIR.into()),
        other => Ok(other?),
    }
}

/// Only a file of no other name is written to: it might be anybody's.
fn open_lock(meta: &OwnedFd) -> Result<OwnedFd> {
    match own_file::to_write(meta, LOCK)? {
        Some(lock) => Ok(lock),
        None => match beneath::create_file(meta, LOCK, Mode::RUSR | Mode::WUSR) {
            // Somebody else was faster, or somebody put something else there.
            Err(Errno::EXIST) => own_file::to_write(meta, LOCK)?.ok_or(NOT_A_LOCK),
            other => Ok(other?),
        },
    }
}

fn hold(lock: &OwnedFd, how: FlockOperation) -> Result<()> {
    flock(lock, how).map_err(|error| match error {
        Errno::WOULDBLOCK => VolumeError::InUse,
        other => other.into(),
    })
}

/// The record of a vault that was never opened.
pub(super) fn write_first_record(meta: &OwnedFd) -> Result<()> {
    let bytes = serde_json::to_vec(&Record::default()).unwrap_or_default();
    Ok(own_file::replace(meta, SESSION, &bytes)?)
}

fn read_record(meta: &OwnedFd) -> Record {
    let bytes = own_file::read(meta, SESSION, (RECORD_MAX, "record of sessions")).ok().flatten();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| {
        // Lost: anything may have happened, and the count goes on from beyond every seal.
        log::warn!("the vault's record of its sessions is lost: it is taken for one after a crash");
        Record { number: clock::now_nanos(), open_since: Some(0), ..Record::default() }
    })
}
