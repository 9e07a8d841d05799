//! Retention: old records go, and the chain can still be checked from there on.

use std::time::SystemTime;

use serde::Serialize;

use super::Audit;
use super::chain::Position;
use super::checkpoint::Statement;
use super::event::{Event, EventTime};
use super::walk::Walk;
use crate::keystore::error::KeystoreError;

/// What was pruned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Records that are gone.
    pub removed: u64,
    /// The last of them.
    pub until: Option<u64>,
}

impl Audit {
    /// The place up to which all records speak of times before `before`, and how many they are.
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

    /// Writes `event`, then removes the records up to `cut`. The place is signed, so that the rest
    /// can still be checked.
    /// Errors: `AuditUnwritable`, and then nothing was removed; those of the file.
    pub(in crate::keystore) fn prune(
        &self,
        cut: Position,
        event: Event,
        now: SystemTime,
    ) -> Result<(), KeystoreError> {
        self.record_durably(event)?;
        let anchor = self.log().keys.sign(Statement::Anchor, cut, now.into());
        self.log().with(|file| {
            file.write(|rows| {
                // Another process may have pruned since: its beginning is the later one.
                if rows.hash(cut.seq)? != Some(cut.hash) {
                    return Ok(());
                }
                rows.put_anchor(&anchor)?;
                rows.delete_until(cut.seq)
            })
        })?;
        self.checkpoint(now).map(drop)
    }
}
