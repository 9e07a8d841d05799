//! The end of the log, inside a transaction: which record comes next, and whether the records before
//! it are those that are known to have been written.

use std::fmt::Write;
use std::time::SystemTime;

use super::checkpoint::{Checkpoint, Statement};
use super::event::{Event, EventTime, request_id};
use super::file::PAGE;
use super::file::{RecordRow, Rows};
use super::keys::AuditKeys;
use super::known::KnownPositions;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;
use crate::keystore::model::caller::Caller;

/// Where the next record goes.
pub(super) struct Tail<'a> {
    keys: &'a AuditKeys,
    rows: &'a Rows<'a>,
    /// The newest record.
    pub(super) head: Position,
    /// Places that the log must have and has not.
    pub(super) lost: Vec<Position>,
}

impl<'a> Tail<'a> {
    /// The end of the log. If it is not one that follows what is known, that is written down first,
    /// for good. Numbers go on behind the last one that is known to have been given.
    /// Errors: those of the file.
    pub(super) fn find(
        keys: &'a AuditKeys,
        rows: &'a Rows<'a>,
        known: &KnownPositions,
        now: SystemTime,
    ) -> Result<Self, KeystoreError> {
        let mut tail = Self { keys, rows, head: rows.head()?, lost: Vec::new() };
        for position in known.positions() {
            if !tail.has(position)? {
                tail.lost.push(position);
            }
        }
        tail.tell_of_lost(now)?;
        Ok(tail)
    }

    /// Writes an event.
    /// Errors: those of the file.
    pub(super) fn push(&mut self, event: &Event) -> Result<(), KeystoreError> {
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

    /// True if the log has a record, or had it until it was pruned.
    fn has(&self, position: Position) -> Result<bool, KeystoreError> {
        if position.seq > self.head.seq {
            return Ok(false);
        }
        if let Some(hash) = self.rows.hash(position.seq)? {
            return Ok(hash == position.hash);
        }
        let anchor = self.rows.anchor()?;
        let pruned = anchor.position.seq > position.seq || anchor.position == position;
        Ok(pruned && self.keys.is_signed(Statement::Anchor, &anchor))
    }

    fn tell_of_lost(&mut self, now: SystemTime) -> Result<(), KeystoreError> {
        let Some(newest) = self.lost.iter().copied().max_by_key(|position| position.seq) else {
            return Ok(());
        };
        if self.is_told(newest)? {
            return Ok(());
        }
        let seq = newest.seq;
        let mut what = if seq > self.head.seq {
            format!("records {} to {seq} are missing from the log", self.head.seq + 1)
        } else if self.rows.hash(seq)?.is_none() {
            format!("record {seq} is missing from the log")
        } else {
            format!("record {seq} is not the one that was written: the log was replaced")
        };
        log::error!("audit log: {what}");
        // Somebody may have these positions in a checkpoint or an export.
        for position in &self.lost {
            let hash = base16ct::lower::encode_string(&position.hash);
            write!(what, "; record {} had the hash {hash}", position.seq).expect("a string grows");
        }
        let mut gap = gap(now)?;
        gap.result = MISSING.into();
        gap.detail = Some(what);
        self.push_as(self.head.seq.max(seq) + 1, &gap)
    }

    /// True if a record says already that a position was lost: another process wrote it, and the
    /// keystore's own file was not written since.
    fn is_told(&self, position: Position) -> Result<bool, KeystoreError> {
        let mark = base16ct::lower::encode_string(&position.hash);
        let tells = |event: Event| {
            let gap = event.operation == GAP && event.result == MISSING;
            gap && event.detail.is_some_and(|detail| detail.contains(&mark))
        };
        let mut after = position.seq;
        loop {
            let page = self.rows.records(after, PAGE)?;
            let Some(last) = page.last() else { return Ok(false) };
            after = last.position.seq;
            if page.iter().any(|row| self.keys.event(row).is_ok_and(tells)) {
                return Ok(true);
            }
        }
    }

    /// Signs the end if nothing was signed for a while.
    /// Errors: those of the file.
    pub(super) fn checkpoint_if_due(
        &mut self,
        now: EventTime,
    ) -> Result<Option<Checkpoint>, KeystoreError> {
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
            return self.sign(now).map(Some);
        }
        Ok(None)
    }

    /// Signs the end, unless it is signed already. `None` for a log without records.
    /// Errors: those of the file.
    pub(super) fn checkpoint(
        &mut self,
        now: EventTime,
    ) -> Result<Option<Checkpoint>, KeystoreError> {
        if self.head.seq == self.rows.anchor()?.position.seq {
            return Ok(None);
        }
        let last = self.rows.last_checkpoint()?;
        match last.filter(|last| last.position == self.head) {
            Some(last) => Ok(Some(self.keys.statement(&last))),
            None => self.sign(now).map(Some),
        }
    }

    fn sign(&self, now: EventTime) -> Result<Checkpoint, KeystoreError> {
        let row = self.keys.sign(Statement::Checkpoint, self.head, now);
        self.rows.put_checkpoint(&row)?;
        Ok(self.keys.statement(&row))
    }
}

/// The operation of records that tell of missing ones.
pub(super) const GAP: &str = "kmsfs:AuditGap";
/// The result of those that tell of records which were there.
pub(super) const MISSING: &str = "RecordsMissing";

/// A record that tells of missing ones.
/// Errors: `Random`.
pub(super) fn gap(now: SystemTime) -> Result<Event, KeystoreError> {
    let caller = Caller { at: Some(now), ..Caller::owner() };
    Ok(Event::by(&caller, GAP, request_id()?))
}

const CHECKPOINT_RECORDS: u64 = 1000;
const CHECKPOINT_MILLIS: u64 = 60 * 60 * 1000;
