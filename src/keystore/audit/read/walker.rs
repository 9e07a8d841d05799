//! Follows the chain of hashes and notes what is wrong.

use serde::Serialize;

use crate::crypto::ed25519::PublicKey;
use crate::keystore::audit::checkpoint::{Checkpoint, Statement};
use crate::keystore::audit::event::Event;
use crate::keystore::audit::tail::{GAP, MISSING};
use crate::keystore::model::audit::Position;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// The id of the keystore whose log it is, a UUID.
    pub keystore: String,
    /// Records that were looked at.
    pub records: u64,
    /// The number of the first of them.
    pub first: Option<u64>,
    /// The number of the last.
    pub last: Option<u64>,
    /// Signed positions that are good.
    pub checkpoints: u64,
    /// The last record that a good signature covers.
    pub signed_until: Option<u64>,
    /// Events that could not be written when they happened, as records say.
    pub lost: u64,
    /// An export of chosen records: that none of them is missing cannot be shown.
    pub partial: bool,
    /// The first record that is not as it was written, or is missing.
    pub first_bad: Option<u64>,
    /// Everything that is wrong, a sentence each. Empty for a good log.
    pub problems: Vec<String>,
}

impl AuditReport {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    pub(super) fn problem(&mut self, seq: u64, what: String) {
        self.first_bad = Some(self.first_bad.map_or(seq, |first| first.min(seq)));
        // One edit by hand may break each record behind it.
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(what);
        }
    }
}

/// Follows the chain from record to record.
pub(super) struct Walker {
    key: PublicKey,
    head: Position,
    pub(super) report: AuditReport,
}

impl Walker {
    /// Starts behind `anchor`.
    pub(super) fn new(anchor: &Checkpoint, key: PublicKey) -> Self {
        let report = AuditReport { keystore: anchor.keystore.clone(), ..Default::default() };
        let mut walker = Self { key, head: anchor.position, report };
        if anchor.check(Statement::Anchor, &key).is_err() {
            let what = "the place where the log begins is not signed by this key";
            walker.report.problem(anchor.position.seq, what.to_owned());
        }
        walker
    }

    /// Goes on behind `position`: what lies between is not shown.
    pub(super) fn leap(&mut self, position: Position) {
        self.head = position;
    }

    /// Looks at the next record; `line` is what it says, if it authenticates.
    pub(super) fn record(&mut self, position: Position, line: Option<&str>) {
        let (seq, expected) = (position.seq, self.head.seq + 1);
        self.report.records += 1;
        self.report.first.get_or_insert(seq);
        match line {
            None => {
                if seq > expected {
                    self.removed(expected, seq - 1);
                }
                self.report.problem(seq, format!("record {seq} was changed"));
            }
            Some(line) if self.head.followed_by(seq, line) == position => {
                if seq != expected {
                    let last = seq - 1;
                    let what =
                        format!("records {expected} to {last} are missing, as record {seq} says");
                    self.report.problem(expected, what);
                }
                self.said(seq, line);
            }
            Some(_) if seq > expected => self.removed(expected, seq - 1),
            Some(_) => {
                self.report.problem(seq, format!("record {seq} does not follow the one before it"));
            }
        }
        self.head = position;
        self.report.last = Some(seq);
    }

    fn removed(&mut self, first: u64, last: u64) {
        let what = if first == last {
            format!("record {first} was removed")
        } else {
            format!("records {first} to {last} were removed")
        };
        self.report.problem(first, what);
    }

    /// What a record says about the log itself.
    fn said(&mut self, seq: u64, line: &str) {
        if !line.contains(GAP) {
            return;
        }
        let Ok(event) = serde_json::from_str::<Event>(line) else { return };
        match (event.operation.as_ref(), event.result.as_ref()) {
            (GAP, "RecordsLost") => self.report.lost += event.count,
            (GAP, MISSING) if self.report.first_bad.is_none_or(|bad| bad >= seq) => {
                let detail = event.detail.unwrap_or_default();
                self.report.problem(seq, format!("record {seq} says: {detail}"));
            }
            _ => {}
        }
    }

    /// Compares with a checkpoint: the next one, once its record or a later one was seen.
    pub(super) fn checkpoint(&mut self, checkpoint: &Checkpoint) {
        let (position, head) = (checkpoint.position, self.head);
        let seq = position.seq;
        let good = checkpoint.keystore == self.report.keystore
            && checkpoint.check(Statement::Checkpoint, &self.key).is_ok();
        if !good {
            let what = format!("the checkpoint of record {seq} is not signed by this key");
            self.report.problem(seq, what);
        } else if position == head {
            self.report.checkpoints += 1;
            self.report.signed_until = Some(seq);
        } else if self.report.partial {
            // Its record is not shown.
        } else if seq == head.seq {
            self.report.problem(seq, format!("record {seq} is not the one that was signed"));
        } else if seq < head.seq {
            self.report.problem(seq, format!("record {seq} was signed, and is gone"));
        } else {
            self.reach(position, "a checkpoint");
        }
    }

    /// Looks at the signature of an export, of which everything before has this digest.
    pub(super) fn end(&mut self, end: &Checkpoint, digest: [u8; 32]) {
        let (first, last) = (self.report.first.unwrap_or(0), end.position.seq);
        let is_of_it = end.keystore == self.report.keystore && end.position.hash == digest;
        if !is_of_it || end.check(Statement::Export, &self.key).is_err() {
            let what = "the last line does not sign what stands before it";
            self.report.problem(first, what.to_owned());
        } else if !self.report.partial && self.head.seq != last {
            let what = format!("the log had record {last}, which is not in it");
            self.report.problem(self.head.seq + 1, what);
        }
    }

    /// Notes that the log had a position, and was found without it.
    pub(super) fn lost(&mut self, position: Position) {
        let what = format!("the log had a record {} once that is not in it any more", position.seq);
        self.report.problem(position.seq, what);
    }

    /// Notes that the log should have reached `position`, or passed it, as the keystore knows.
    pub(super) fn expect(&mut self, position: Position) {
        self.reach(position, "the keystore");
    }

    fn reach(&mut self, position: Position, who: &str) {
        if position.seq > self.head.seq {
            let what = format!(
                "the log ends with record {}, and {who} knows record {}: the end was cut off",
                self.head.seq, position.seq
            );
            self.report.problem(self.head.seq + 1, what);
        }
    }
}

const MOST_PROBLEMS: usize = 100;
