//! Recovery after a crash: what the crashed sessions were changing is looked through, mended and
//! sealed, and then the crash excuses nothing any more (R22; FORMAT section 12.4).
//!
//! It runs beside everything else, in steps, and can be interrupted at any point: what is mended
//! is durable and sealed, so the next run passes over it, and a long file goes on where it stopped.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;
use serde::Serialize;

use super::Volume;
use super::clock::ctime;
use super::content::{Look, Mended, explains};
use super::descent::Descent;
use super::dir::Dir;
use super::error::{Result, VolumeError};
use super::key_service::KeyHealth;
use super::ledger::Ledger;
use super::open::policy_of;
use super::open_file::{File, quietly};
use super::walk::{Entry, Role, Visit};
use crate::envelope::layout::{HEADER_AREA, PAGE, PAGE_LEN, PageNo, plain_size};
use crate::envelope::{
    Cursor, FileHeader, HEADER_SLOTS, RECORD_LEN, SessionWord, Unrecovered, UnverifiedHeader,
    claimed_length,
};
use crate::id::KeyId;

/// Files between two syncs of the filesystem.
const BATCH: usize = 256;
/// Passes in one attempt, while entries are renamed under them.
const PASSES: usize = 8;
/// Bytes of a file that are looked at while others wait.
const STEP: u64 = 4 * 1024 * 1024;
/// Bytes of a file after which the place is noted.
const NOTED: u64 = 256 * 1024 * 1024;

/// How far recovery is, and at the end what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RecoveryReport {
    /// Files in the volume that were considered.
    pub scanned: u64,
    /// Files that a crashed session may have been changing, and that were looked through.
    pub examined: u64,
    /// Backing paths of files that have bytes which cannot be read, with the reason.
    pub spoiled: Vec<(PathBuf, String)>,
    /// Backing paths of files of which nothing was synced before a crash: they are empty now.
    pub emptied: Vec<PathBuf>,
    /// Keys that could not be used: files under them are looked through when they can.
    pub waiting: Vec<String>,
    /// True if nothing is excused by a crash any more, but for what waits.
    pub complete: bool,
}

struct Run<'a> {
    volume: &'a Volume,
    ledger: &'a Ledger,
    crashes: Vec<Unrecovered>,
    report: RecoveryReport,
    unusable: BTreeSet<KeyId>,
    /// Something could not be looked at: the crashes stay as they are.
    unfinished: bool,
    batch: Vec<Arc<File>>,
    progress: &'a mut dyn FnMut(&RecoveryReport) -> ControlFlow<()>,
}

impl Volume {
    /// Crashes whose traces are not mended yet, with those that nobody has agreed to believe.
    pub fn unrecovered(&self) -> Vec<Unrecovered> {
        self.session().ledger().map_or_else(Vec::new, |ledger| ledger.unrecovered())
    }

    /// How often the vault that was mounted here was older than before, or another copy.
    pub fn rollbacks(&self) -> u64 {
        self.session().ledger().map_or(0, |ledger| ledger.anchor().rollbacks)
    }

    /// Looks through what crashed sessions were changing. `progress` may stop it at any point.
    ///
    /// # Errors
    /// Those of the backing filesystem; what is wrong with a file is in the report.
    pub fn recover(
        &self,
        progress: &mut dyn FnMut(&RecoveryReport) -> ControlFlow<()>,
    ) -> Result<RecoveryReport> {
        let ledger = self.session().ledger().cloned();
        let Some(ledger) = ledger else { return Ok(RecoveryReport::default()) };
        let mut crashes = ledger.unrecovered();
        crashes.retain(|crash| !crash.withheld && self.is_worth_a_look(crash));
        if crashes.is_empty() {
            return Ok(RecoveryReport { complete: true, ..RecoveryReport::default() });
        }
        let mut run = Run {
            volume: self,
            ledger: &ledger,
            crashes,
            report: RecoveryReport::default(),
            unusable: BTreeSet::new(),
            unfinished: false,
            batch: Vec::new(),
            progress,
        };
        let walked = run.passes();
        let settled = run.settle();
        let stopped = walked?.is_break();
        settled?;
        run.finish(stopped)
    }

    /// False if nothing can have changed since a recovery that waits for keys.
    fn is_worth_a_look(&self, crash: &Unrecovered) -> bool {
        let Some(keys) = &crash.waiting else { return true };
        let health = self.keyring.service().health(keys);
        health.iter().any(|(_, health)| *health == KeyHealth::Usable)
    }
}

impl Run<'_> {
    /// Passes until nothing got another name during one: what is renamed under a walk may be missed
    /// by it, and would lose its excuse unseen.
    fn passes(&mut self) -> Result<ControlFlow<()>> {
        let renames = &self.volume.tree.renames;
        for _ in 0..PASSES {
            let before = renames.load(Ordering::Acquire);
            self.report = RecoveryReport::default();
            (self.unfinished, self.unusable) = (false, BTreeSet::new());
            if self.walk()?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.settle()?;
            if before == renames.load(Ordering::Acquire) {
                return Ok(ControlFlow::Continue(()));
            }
        }
        log::info!("recovery waits for a time in which nothing is renamed");
        self.unfinished = true;
        Ok(ControlFlow::Continue(()))
    }

    fn walk(&mut self) -> Result<ControlFlow<()>> {
        let mut descent = Descent::new(self.volume)?;
        while let Some((visit, dir)) = descent.step()? {
            for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
                self.report.scanned += 1;
                self.file(&visit, &dir, entry)?;
                if self.batch.len() >= BATCH {
                    self.settle()?;
                }
                if (self.progress)(&self.report).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn file(&mut self, visit: &Visit, dir: &Dir, entry: &Entry) -> Result<()> {
        // The number, the claims and the contents are those of one inode, whatever its name leads to
        // meanwhile.
        let held = match visit.hold(entry) {
            Ok(Some(held)) => held,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.failed(visit.path_of(entry), &[], error);
                return Ok(());
            }
        };
        let open = |flags| quietly(flags, |flags| held.open_file(flags));
        let claims = match self.concerned(held.found(), open) {
            Ok(Some(claims)) => claims,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.failed(visit.path_of(entry), &[], error);
                return Ok(());
            }
        };
        self.report.examined += 1;
        let ino = self.volume.tree.inodes.shown(held.found().st_ino);
        let opened = policy_of(dir).and_then(|policy| self.volume.files.open(ino, &policy, open));
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                self.failed(visit.path_of(entry), &claims.keys, error);
                return Ok(());
            }
        };
        if claims.header.is_none() && file.content().header().is_none() && file.size() == 0 {
            self.report.emptied.push(visit.path_of(entry));
        }
        let looked = self.look_through(&file, claims.header.map(|header| header.file));
        self.batch.push(file);
        match looked {
            Ok(true) => {
                let what = "bytes were lost in the crash, or are not authentic".to_owned();
                self.report.spoiled.push((visit.path_of(entry), what));
            }
            Ok(false) => {}
            Err(error) => self.failed(visit.path_of(entry), &claims.keys, error),
        }
        Ok(())
    }

    /// Mends a file step by step; true if some of it cannot be read.
    fn look_through(&mut self, file: &File, id: Option<crate::id::FileId>) -> Result<bool> {
        if file.content().needs_recovery() {
            // What cannot be mended now keeps its excuse.
            file.must_be_writable()?;
        }
        let mut noted = 0;
        loop {
            match file.content().recover(STEP)? {
                Mended::All { spoiled } => return Ok(spoiled),
                Mended::UpTo(bytes) => {
                    if let Some(file) = id.filter(|_| bytes - noted >= NOTED) {
                        self.ledger.set_cursor(Cursor { file, bytes })?;
                        noted = bytes;
                    }
                    if (self.progress)(&self.report).is_break() {
                        self.unfinished = true;
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// What a file claims to be, if a crashed session may have been changing it; one without any
    /// header claims nothing, and is looked at as well. `found`: what it was
    /// before it is opened, since the change time moves where its mode has to be lent for that.
    fn concerned(
        &self,
        found: &Stat,
        open: impl Fn(OFlags) -> std::result::Result<OwnedFd, Errno>,
    ) -> Result<Option<Claims>> {
        let probe = match open(OFlags::RDONLY) {
            // It has become something else.
            Err(Errno::STALE) => return Ok(None),
            other => other?,
        };
        let mut page = [0; PAGE_LEN];
        rustix::io::pread(&probe, &mut page, 0)?;
        let slots: Vec<_> = page
            .chunks_exact(RECORD_LEN)
            .take(HEADER_SLOTS)
            .filter_map(|slot| UnverifiedHeader::parse(slot.first_chunk()?).ok())
            .map(|slot| slot.claims().clone())
            .collect();
        let claimed = slots
            .iter()
            .any(|header| self.crashes.iter().any(|crash| explains(crash, header, true)));
        let bare = found.st_size > 0 && page.iter().take(HEADER_AREA).all(|byte| *byte == 0);
        if !claimed && !bare && !self.has_odd_size(found, &page) {
            return Ok(None);
        }
        let keys = slots.iter().flat_map(|header| header.recipients.iter()).map(|r| r.key);
        let keys = keys.collect();
        Ok(Some(Claims { keys, header: slots.into_iter().max_by_key(|h| h.sequence) }))
    }

    /// A file of one page is never announced: only its length can be of another moment.
    fn has_odd_size(&self, stat: &Stat, page: &[u8; PAGE_LEN]) -> bool {
        let Ok(length) = u64::try_from(stat.st_size) else { return false };
        let changed = ctime(stat);
        let suspect =
            self.crashes.iter().any(|crash| (crash.span.0..=crash.span.1).contains(&changed));
        let (size, _) = plain_size(length);
        suspect && length / PAGE == 1 && claimed_length(PageNo(0), page) as u64 != size
    }

    fn failed(&mut self, path: PathBuf, keys: &[KeyId], error: VolumeError) {
        match error {
            VolumeError::KeyUnusable(key) | VolumeError::WrappedElsewhere(key) => {
                self.unusable.insert(key);
                self.unusable.extend(keys);
            }
            // What is not authentic is excused by nothing.
            VolumeError::Tampered(_)
            | VolumeError::Misplaced(_)
            | VolumeError::Lost(_)
            | VolumeError::ForeignKey { .. } => {
                log::error!("recovery: {error}");
                self.report.spoiled.push((path, error.to_string()));
            }
            other => {
                log::error!("recovery: a file could not be looked through: {other}");
                self.unfinished = true;
            }
        }
    }

    /// What was mended is made durable, then sealed.
    fn settle(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let synced = self.volume.sync_all(Look::Briefly);
        for file in std::mem::take(&mut self.batch) {
            if synced.is_ok()
                && let Err(error) = file.content().seal(Look::Briefly)
            {
                log::debug!("inode {}: not sealed: {error}", file.ino());
            }
            let ino = file.ino();
            drop(file);
            self.volume.files.release(ino);
        }
        synced
    }

    /// The crashes are mended once the last seal is durable.
    fn finish(mut self, stopped: bool) -> Result<RecoveryReport> {
        self.report.waiting = self.unusable.iter().map(KeyId::to_string).collect();
        if stopped || self.unfinished {
            return Ok(self.report);
        }
        self.volume.sync_all(Look::Briefly)?;
        let words: Vec<SessionWord> = self.crashes.iter().map(|crash| crash.word).collect();
        let unusable: Vec<KeyId> = self.unusable.iter().copied().collect();
        self.ledger.recovered(&words, &unusable)?;
        let shared = self.volume.files.shared();
        shared.set_crashes(self.ledger.unrecovered(), self.ledger.cursor());
        self.report.complete = true;
        log::info!(
            "volume {}: recovery looked through {} of {} files",
            self.volume.id(),
            self.report.examined,
            self.report.scanned
        );
        Ok(self.report)
    }
}

/// What an unopened file says of itself.
struct Claims {
    keys: Vec<KeyId>,
    header: Option<FileHeader>,
}
