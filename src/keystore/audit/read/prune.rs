//! Retention: old records go, and the chain can still be checked from there on.

use std::time::SystemTime;

use serde::Serialize;

use crate::keystore::audit::checkpoint::Statement;
use crate::keystore::audit::event::{Event, EventTime};
use crate::keystore::audit::file::AuditFile;
use crate::keystore::audit::read::walk::Walk;
use crate::keystore::audit::trail::Audit;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;

/// What was pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Records that are gone.
    pub removed: u64,
    /// The last of them.
    pub until: Option<u64>,
}

impl Audit {
    /// The position up to which all records speak of times before `before`, and how many they are.
    /// Errors: `AuditDamaged` if they are not as they were written: what shows that would go with
    /// them. `AuditUnwritable`; those of the file.
    pub(in crate::keystore) fn prunable(
        &self,
        before: EventTime,
    ) -> Result<(Option<Position>, u64), KeystoreError> {
        self.flush()?;
        let known = self.log().known().clone();
        let Some(mut walk) = Walk::begin(self.log(), known)? else { return Ok((None, 0)) };
        let mut cut = None;
        while let Some(step) = walk.next()? {
            // A record that cannot be read may be as old: it is looked at, and found to be bad.
            if step.event().is_some_and(|event| event.end() >= before) {
                break;
            }
            walk.take(&step);
            cut = Some(step.position);
        }
        let report = &walk.walker.report;
        match (report.first_bad, report.problems.first()) {
            (Some(record), Some(problem)) => {
                Err(KeystoreError::AuditDamaged { record, problem: problem.clone() })
            }
            _ => Ok((cut, report.records)),
        }
    }

    /// Writes `event`, then removes the records up to `cut`. The position is signed, so that the rest
    /// can still be checked.
    /// Errors: `AuditUnwritable`, and then nothing was removed; those of the file.
    pub(in crate::keystore) fn prune(
        &self,
        cut: Position,
        event: Event,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.record_durably(event)?;
        while self.prune_some(cut, now)? == Left::Some {}
        self.checkpoint(now).map(drop)
    }

    /// Removes the oldest records up to `cut`, not more than others can wait for: what is deleted is
    /// overwritten, which takes as much of the WAL. The log is whole after each step.
    fn prune_some(&self, cut: Position, now: SystemTime) -> Result<Left, KeystoreError> {
        let left = self.log().with(|file| {
            file.write(|rows| {
                let begin = rows.anchor()?.position.seq;
                if begin >= cut.seq {
                    return Ok(Left::None);
                }
                let seq = begin.saturating_add(STEP).min(cut.seq);
                let found = rows.hash(seq)?.map(|hash| Position { seq, hash });
                // It was there when it was verified. Only a beginning that the rest follows is signed.
                let Some(position) = found.filter(|position| seq < cut.seq || *position == cut)
                else {
                    let problem = format!("record {seq} was removed or changed just now");
                    return Err(KeystoreError::AuditDamaged { record: seq, problem });
                };
                let keys = &self.log().keys;
                rows.put_anchor(&keys.sign(Statement::Anchor, position, now.into()))?;
                rows.delete_until(seq)?;
                Ok(if seq < cut.seq { Left::Some } else { Left::None })
            })
        })?;
        Ok(left.unwrap_or(Left::None))
    }

    /// Gives the space of pruned records back, if nobody is in the way.
    pub(in crate::keystore) fn shrink(&self) {
        match self.log().with(AuditFile::shrink) {
            Ok(Some(false)) => {
                log::info!("the audit log keeps its size until other processes release it");
            }
            Ok(_) => {}
            // It is no smaller than it was, and whole.
            Err(error) => log::warn!("the audit log keeps its size: {error}"),
        }
    }
}

/// Are there records left to remove?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Some,
    None,
}

/// Records that are removed in one transaction.
const STEP: u64 = 1000;
