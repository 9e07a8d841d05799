//! The log as a file that several processes append to: which record comes next, and what is
//! noticed before it is written.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::chain::Position;
use super::checkpoint::{Checkpoint, Statement};
use super::event::{Event, EventTime, request_id};
use super::file::{AuditFile, RecordRow, Rows};
use super::keys::AuditKeys;
use super::last_use::LastUses;
use crate::keystore::Caller;
use crate::keystore::error::KeystoreError;
use crate::keystore::store::Sharing;

/// The log of one keystore, in this process.
pub(super) struct Log {
    path: PathBuf,
    sharing: Sharing,
    pub(super) keys: AuditKeys,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    file: Option<AuditFile>,
    /// Device and inode of `file`.
    inode: (u64, u64),
    /// A place that the keystore's own file says the log has had.
    noted: Option<Position>,
    /// The head was compared with `noted` since the file was opened.
    compared: bool,
}

/// What an append did.
pub(super) struct Appended {
    /// The newest record.
    pub(super) head: Position,
    /// The checkpoint that was made along with it.
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Log {
    pub(super) fn new(path: PathBuf, sharing: Sharing, keys: AuditKeys) -> Self {
        Self { path, sharing, keys, opened: Mutex::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Learns which place the keystore's own file has noted.
    pub(super) fn learn(&self, noted: Position) {
        self.lock().noted = Some(noted);
    }

    /// Appends events, durably and in order, behind whatever other processes wrote, and notes the
    /// uses of keys.
    /// Errors: `Database`, `Locked`, `Io`: nothing was written then.
    pub(super) fn append(
        &self,
        events: &[&Event],
        uses: LastUses,
        now: SystemTime,
    ) -> Result<Appended, KeystoreError> {
        let mut opened = self.lock();
        let done = self.append_locked(&mut opened, events, &uses, now);
        match &done {
            Ok(appended) => {
                opened.compared = true;
                if let Some(checkpoint) = &appended.checkpoint {
                    log::info!("audit checkpoint {checkpoint}");
                }
            }
            // Whatever is wrong with it, the next attempt opens it again.
            Err(_) => opened.file = None,
        }
        done
    }

    fn append_locked(
        &self,
        opened: &mut Opened,
        events: &[&Event],
        uses: &LastUses,
        now: SystemTime,
    ) -> Result<Appended, KeystoreError> {
        self.ready(opened, now)?;
        let noted = opened.noted.filter(|_| !opened.compared);
        let file = opened.file.as_mut().expect("it was opened just now");
        file.write(|rows| {
            let mut tail = Tail { keys: &self.keys, rows, head: rows.head()? };
            if let Some(noted) = noted {
                tail.compare(noted, now)?;
            }
            events.iter().try_for_each(|event| tail.push(event))?;
            uses.store(&self.keys, rows)?;
            let checkpoint = tail.checkpoint_if_due(now.into())?;
            Ok(Appended { head: tail.head, checkpoint })
        })
    }

    /// Signs the place where the log ends now, so that what was written is bound to the end.
    /// `None` if there is no log yet.
    pub(super) fn checkpoint(&self, now: SystemTime) -> Result<Option<Checkpoint>, KeystoreError> {
        self.with(|file| {
            file.write(|rows| {
                let mut tail = Tail { keys: &self.keys, rows, head: rows.head()? };
                if tail.head.seq == rows.anchor()?.position.seq {
                    return Ok(None);
                }
                let last = rows.last_checkpoint()?;
                match last.filter(|last| last.position == tail.head) {
                    Some(last) => Ok(Some(self.keys.statement(&last))),
                    None => tail.checkpoint(now.into()).map(Some),
                }
            })
        })
        .map(Option::flatten)
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
            (opened.inode, opened.compared) = (inode, false);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of the log, inside a transaction.
struct Tail<'a> {
    keys: &'a AuditKeys,
    rows: &'a Rows<'a>,
    head: Position,
}

impl Tail<'_> {
    fn push(&mut self, event: &Event) -> Result<(), KeystoreError> {
        self.push_as(self.head.seq + 1, event)
    }

    fn push_as(&mut self, seq: u64, event: &Event) -> Result<(), KeystoreError> {
        let line = event.line();
        let position = self.head.followed_by(seq, &line);
        let sealed = self.keys.seal_record(seq, &line)?;
        self.rows.put_record(&RecordRow { position, sealed })?;
        self.head = position;
        Ok(())
    }

    /// Writes down, for good, that the log is not the one that the keystore remembers. Numbers go
    /// on behind the last one that is known to have been given.
    fn compare(&mut self, noted: Position, now: SystemTime) -> Result<(), KeystoreError> {
        let missing = noted.seq > self.head.seq;
        let changed = self.rows.hash(noted.seq)?.is_some_and(|hash| hash != noted.hash);
        if !missing && !changed {
            return Ok(());
        }
        let mut gap = gap(now)?;
        gap.result = "RecordsMissing".into();
        gap.detail = Some(if missing {
            format!("records {} to {} are missing from the log", self.head.seq + 1, noted.seq)
        } else {
            format!("record {} is not the one that was written: the log was replaced", noted.seq)
        });
        log::error!("audit log: {}", gap.detail.as_deref().unwrap_or_default());
        self.push_as(self.head.seq.max(noted.seq) + 1, &gap)
    }

    fn checkpoint_if_due(&mut self, now: EventTime) -> Result<Option<Checkpoint>, KeystoreError> {
        let (seq, time) = match self.rows.last_checkpoint()? {
            Some(last) => (last.position.seq, last.time),
            None => {
                let anchor = self.rows.anchor()?;
                (anchor.position.seq, anchor.time)
            }
        };
        let many = self.head.seq.saturating_sub(seq) >= CHECKPOINT_RECORDS;
        // A clock that was set back does not keep checkpoints away.
        let long = now.millis().abs_diff(time.millis()) >= CHECKPOINT_MILLIS;
        if self.head.seq > seq && (many || long) {
            return self.checkpoint(now).map(Some);
        }
        Ok(None)
    }

    fn checkpoint(&mut self, now: EventTime) -> Result<Checkpoint, KeystoreError> {
        let row = self.keys.sign(Statement::Checkpoint, self.head, now);
        self.rows.put_checkpoint(&row)?;
        Ok(self.keys.statement(&row))
    }
}

/// The operation of records that tell of missing ones.
pub(super) const GAP: &str = "kmsfs:AuditGap";

/// A record that tells of missing ones.
pub(super) fn gap(now: SystemTime) -> Result<Event, KeystoreError> {
    let caller = Caller { at: Some(now), ..Caller::owner() };
    Ok(Event::by(&caller, GAP, request_id()?))
}

const CHECKPOINT_RECORDS: u64 = 1000;
const CHECKPOINT_MILLIS: u64 = 60 * 60 * 1000;
