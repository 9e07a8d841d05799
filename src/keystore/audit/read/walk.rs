//! Reads the log from its beginning and checks it on the way.

use std::iter::Peekable;
use std::vec;

use zeroize::Zeroizing;

use crate::keystore::audit::event::Event;
use crate::keystore::audit::file::{PAGE, RecordRow, SignedRow};
use crate::keystore::audit::known::KnownPositions;
use crate::keystore::audit::log::Log;
use crate::keystore::audit::read::walker::Walker;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::Position;

/// A way through the log. Page by page: whoever writes meanwhile waits for one page, not for all.
pub(super) struct Walk<'a> {
    log: &'a Log,
    known: KnownPositions,
    pub(super) walker: Walker,
    signed: Peekable<vec::IntoIter<SignedRow>>,
    page: vec::IntoIter<RecordRow>,
    after: u64,
}

/// A record that was read and not looked at yet.
pub(super) struct Step {
    pub(super) position: Position,
    /// What it says, if it authenticates.
    line: Option<Zeroizing<Vec<u8>>>,
}

impl Step {
    /// What happened, if the record says so.
    pub(super) fn event(&self) -> Option<Event> {
        serde_json::from_slice(self.line.as_deref()?).ok()
    }
}

impl<'a> Walk<'a> {
    /// Starts where the log begins. It should have what is `known` of it. `None` if there is no log.
    /// Errors: those of the file.
    pub(super) fn begin(
        log: &'a Log,
        known: KnownPositions,
    ) -> Result<Option<Self>, KeystoreError> {
        let start = log.with(|file| {
            file.read(|rows| Ok((rows.damage()?, rows.anchor()?, rows.checkpoints()?)))
        })?;
        let Some((damage, anchor, signed)) = start else { return Ok(None) };
        let mut walker = Walker::new(&log.keys.statement(&anchor), log.keys.public());
        damage.into_iter().for_each(|what| walker.report.problem(0, what));
        if anchor.position.seq == 0 && anchor.position != log.keys.genesis() {
            let what = "the log does not begin as that of this keystore";
            walker.report.problem(0, what.to_owned());
        }
        let (signed, page) = (signed.into_iter().peekable(), Vec::new().into_iter());
        Ok(Some(Self { log, known, walker, signed, page, after: 0 }))
    }

    /// Reads the next record; `None` behind the last.
    /// Errors: those of the file.
    pub(super) fn next(&mut self) -> Result<Option<Step>, KeystoreError> {
        if self.page.len() == 0 {
            let page = self.log.with(|file| file.read(|rows| rows.records(self.after, PAGE)))?;
            self.page = page.unwrap_or_default().into_iter();
        }
        let Some(row) = self.page.next() else { return Ok(None) };
        self.after = row.position.seq;
        let line = self.log.keys.open_record(self.after, &row.sealed).ok();
        Ok(Some(Step { position: row.position, line }))
    }

    /// Looks at a record, and at the checkpoints up to it.
    pub(super) fn take(&mut self, step: &Step) {
        let position = step.position;
        let line = step.line.as_deref().and_then(|line| std::str::from_utf8(line).ok());
        self.walker.record(position, line);
        if self.known.positions().any(|known| known.seq == position.seq && known != position) {
            let what = format!("record {} is not the one that the keystore knows", position.seq);
            self.walker.report.problem(position.seq, what);
        }
        while let Some(due) = self.signed.next_if(|due| due.position.seq <= position.seq) {
            self.walker.checkpoint(&self.log.keys.statement(&due));
        }
    }

    /// The end of the log: what is left of the checkpoints is of records behind the last.
    pub(super) fn finish(mut self) -> Walker {
        for left in self.signed {
            self.walker.checkpoint(&self.log.keys.statement(&left));
        }
        if let Some(newest) = self.known.newest() {
            self.walker.expect(newest);
        }
        self.walker
    }
}
