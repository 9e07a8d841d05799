//! The log as JSON lines, for archives and for people who check it without any key.
//!
//! Line by line: `{"anchor": …}` says where the chain begins, `{"record": …}` is an event with the
//! hashes before and after it, `{"checkpoint": …}` a signed position. `{"end": …}` is the last one, and
//! signs all lines before it: of chosen records nothing else shows that they are the log's.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::crypto::ed25519::PublicKey;
use crate::crypto::hash::sha256;
use crate::keystore::audit::checkpoint::{Checkpoint, Statement};
use crate::keystore::audit::event::Event;
use crate::keystore::audit::file::{PAGE, RecordRow};
use crate::keystore::audit::read::filter::AuditFilter;
use crate::keystore::audit::read::walker::{AuditReport, Walker};
use crate::keystore::audit::trail::Audit;
use crate::keystore::error::KeystoreError;
use crate::keystore::model::audit::{Position, hex32};
use crate::keystore::storage::file::io_error;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Anchor(Anchor),
    Record(ExportedRecord),
    Checkpoint(Checkpoint),
    /// The hash is that of all lines before: of each, after the hash of those before it.
    End(Checkpoint),
}

#[derive(Serialize, Deserialize)]
struct Anchor {
    #[serde(flatten)]
    checkpoint: Checkpoint,
    /// Only chosen records follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

#[derive(Serialize, Deserialize)]
struct ExportedRecord {
    seq: u64,
    #[serde(with = "hex32")]
    previous: [u8; 32],
    #[serde(with = "hex32")]
    hash: [u8; 32],
    event: serde_json::Value,
}

impl Audit {
    /// Writes the records that match, with what it takes to check them. Returns how many.
    /// Errors: `Tampered`, `Io` if `out` fails; those of the file.
    pub(in crate::keystore) fn export(
        &self,
        filter: &AuditFilter,
        out: &mut dyn Write,
        now: SystemTime,
    ) -> Result<u64, KeystoreError> {
        let mut out = Lines { out, hash: NO_LINES };
        self.flush()?;
        let start =
            self.log().with(|file| file.read(|rows| Ok((rows.anchor()?, rows.checkpoints()?))))?;
        let Some((anchor, signed)) = start else { return Ok(0) };
        let keys = &self.log().keys;
        let checkpoint = keys.statement(&anchor);
        let mut previous = checkpoint.position;
        out.print(&Line::Anchor(Anchor { checkpoint, partial: !filter.is_open() }))?;
        let mut signed = signed.iter().map(|row| keys.statement(row)).peekable();
        let mut count = 0;
        loop {
            let page =
                self.log().with(|file| file.read(|rows| rows.records(previous.seq, PAGE)))?;
            let Some(page) = page.filter(|page| !page.is_empty()) else { break };
            for row in page {
                let position = row.position;
                if let Some(record) = self.exported(previous, &row, filter)? {
                    out.print(&Line::Record(record))?;
                    count += 1;
                }
                previous = position;
                while let Some(due) = signed.next_if(|due| due.position.seq <= position.seq) {
                    out.print(&Line::Checkpoint(due))?;
                }
            }
        }
        let all = Position { seq: previous.seq, hash: out.hash };
        let signed = keys.sign(Statement::Export, all, now.into());
        out.print(&Line::End(keys.statement(&signed)))?;
        Ok(count)
    }

    fn exported(
        &self,
        previous: Position,
        row: &RecordRow,
        filter: &AuditFilter,
    ) -> Result<Option<ExportedRecord>, KeystoreError> {
        let event: Event = self.log().keys.event(row)?;
        if !filter.matches(&event) {
            return Ok(None);
        }
        let Position { seq, hash } = row.position;
        let event = serde_json::to_value(&event).expect("an event is plain data");
        Ok(Some(ExportedRecord { seq, previous: previous.hash, hash, event }))
    }
}

/// Checks an export with nothing but the public key: all of it must be signed.
/// Errors: those of reading. What is wrong with the export is in the report.
pub fn verify_export(export: impl BufRead, key: &PublicKey) -> io::Result<AuditReport> {
    let mut walker: Option<Walker> = None;
    let mut broken = Vec::new();
    let (mut hash, mut ended) = (NO_LINES, false);
    for (number, text) in (1_u64..).zip(export.lines()) {
        let text = text?;
        match (serde_json::from_str(&text), &mut walker) {
            _ if ended => broken.push(format!("line {number} stands behind the end")),
            (Ok(Line::End(end)), Some(walker)) => {
                walker.end(&end, hash);
                ended = true;
            }
            (Ok(Line::Anchor(anchor)), None) => {
                let begun = walker.insert(Walker::new(&anchor.checkpoint, *key));
                begun.report.partial = anchor.partial;
            }
            (Ok(Line::Record(record)), Some(walker)) => follow(walker, &record),
            (Ok(Line::Checkpoint(checkpoint)), Some(walker)) => walker.checkpoint(&checkpoint),
            (Ok(_), _) => broken.push(format!("line {number} stands where it does not belong")),
            (Err(error), _) => broken.push(format!("line {number} cannot be read: {error}")),
        }
        hash = sha256(&[&hash, text.as_bytes()]);
    }
    let mut report = walker.map(|walker| walker.report).unwrap_or_else(|| {
        broken.push("no line says where the log begins".to_owned());
        AuditReport::default()
    });
    if !ended {
        broken.push("no last line signs it: lines may be missing, or not of the log".to_owned());
    }
    broken.into_iter().for_each(|what| report.problem(0, what));
    Ok(report)
}

fn follow(walker: &mut Walker, record: &ExportedRecord) {
    if walker.report.partial {
        walker.leap(Position { seq: record.seq.saturating_sub(1), hash: record.previous });
    }
    let line = serde_json::to_string(&record.event).expect("it was read from JSON");
    walker.record(Position { seq: record.seq, hash: record.hash }, Some(&line));
}

/// Where lines are written, and the hash of those that were.
struct Lines<'a> {
    out: &'a mut dyn Write,
    hash: [u8; 32],
}

impl Lines<'_> {
    fn print(&mut self, line: &Line) -> Result<(), KeystoreError> {
        let text = serde_json::to_string(line).expect("a line is plain data");
        self.hash = sha256(&[&self.hash, text.as_bytes()]);
        let written = writeln!(self.out, "{text}");
        written.map_err(|error| io_error(Path::new("export"), "write", error))
    }
}

const NO_LINES: [u8; 32] = [0; 32];
