//! The audit log: every operation, who asked for it and what came of it.
//!
//! It is a file of its own beside the keystore, `<keystore>.audit`, that every process with the
//! keystore appends to. Each record is sealed under a key derived from the root key, bound to its
//! number, and chained to the one before by a hash over what it says (`chain`), so that an export
//! can be checked by somebody who has no key. Signed positions of the chain (`checkpoint`) tell
//! them that it is the keystore's. The keystore's own file notes a recent position, and each process
//! knows the record that it wrote last (`known`): a log that was cut, replaced or removed is noticed
//! by the next append (`tail`).
//!
//! What is written when: `writer`. What it can and cannot prove: docs/AUDIT.md.

mod chain;
mod checkpoint;
mod event;
mod file;
mod keys;
mod known;
mod last_use;
mod log;
mod opens;
mod queue;
mod read;
mod tail;
mod trail;
mod writer;

pub use checkpoint::Checkpoint;
pub use event::{AuditRecord, Event, EventTime, SUCCESS, request_id};
pub use last_use::{KeyLastUsage, LastUsage};
pub use opens::FileOpen;
pub use read::export::verify_export;
pub use read::filter::AuditFilter;
pub use read::prune::Pruned;
pub use read::walker::AuditReport;

pub(in crate::keystore) use opens::Opener;
pub(in crate::keystore) use trail::{Audit, bring_along, log_path};

pub use crate::keystore::model::audit::{AuditMode, Position};
