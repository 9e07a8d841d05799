//! Retention: old records go, and the chain can still be checked from there on.

use std::time::SystemTime;

use serde::Serialize;

use super::Audit;
use super::chain::Position;
use super::checkpoint::Statement;
use super::event::{Event, EventTime};
use super::filter::PAGE;
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
    /// Errors: `Tampered`: nothing is pruned from a log that is not good.
    pub(in crate::keystore) fn prunable(
        &self,
        before: EventTime,
    ) -> Result<(Option<Position>, u64), KeystoreError> {
        self.flush()?;
        let (mut cut, mut count, mut after) = (None, 0, 0);
        loop {
            let page = self.log().with(|file| file.read(|rows| rows.records(after, PAGE)))?;
            let Some(page) = page.filter(|page| !page.is_empty()) else { return Ok((cut, count)) };
            for row in page {
                if self.log().keys.event(&row)?.end() >= before {
                    return Ok((cut, count));
                }
                after = row.position.seq;
                cut = Some(row.position);
                count += 1;
            }
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
                rows.put_anchor(&anchor)?;
                rows.delete_until(cut.seq)
            })
        })?;
        self.checkpoint(now).map(drop)
    }
}
