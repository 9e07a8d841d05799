//! Recovery after a crash: looks through what the crashed sessions were changing, mends and seals it,
//! and then the crash excuses nothing any more (R22; FORMAT section 12.4).
//!
//! It runs beside everything else, in steps, and can be interrupted at any point: what is mended
//! is durable and sealed, so the next run passes over it, and a long file goes on where it stopped.
//!
//! A file's excuse ends with the file: both slots of its header say so before the next one's does.
//! What cannot be looked at keeps its excuse, and nothing else does.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::descent::{Descent, Missed, Unseen};
use super::walk::{Entry, Role, Visit};
use crate::envelope::layout::{HEADER_AREA, PAGE_LEN};
use crate::envelope::{
    Cursor, FileHeader, HEADER_SLOTS, Intents, RECORD_LEN, Unrecovered, UnverifiedHeader,
};
use crate::id::KeyId;
use crate::volume::backing::handle::Handle;
use crate::volume::backing::handle::open_noatime;
use crate::volume::content::{Mended, SealEffort, explains};
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::files::file_key::policy_of;
use crate::volume::files::unopened::has_odd_size;
use crate::volume::keys::service::KeyHealth;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;
use crate::volume::session::ledger::{Ledger, Remainder};

/// Files between two syncs of the filesystem.
const BATCH: usize = 256;
/// Bytes of a file that are looked at while others wait.
const STEP: u64 = 4 * 1024 * 1024;
/// Bytes of a file after which the position is noted.
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
    /// Keys that could not be used: files under them are looked through once they can.
    pub waiting: Vec<String>,
    /// True if a crash excuses nothing any more, except what waits.
    pub complete: bool,
}

struct Run<'a> {
    volume: &'a Volume,
    ledger: &'a Ledger,
    crashes: Vec<Unrecovered>,
    report: RecoveryReport,
    unfinished: Unfinished,
    batch: Vec<Inspected>,
    progress: &'a mut dyn FnMut(&RecoveryReport) -> ControlFlow<()>,
}

/// What could not be looked through.
#[derive(Default)]
struct Unfinished {
    /// The files, as far as they say who they are, for each of the crashes.
    files: Vec<Intents>,
    /// Keys that were refused.
    keys: BTreeSet<KeyId>,
    /// Something other than a key was in the way: recovery tries again.
    again: bool,
    /// For some files only the size may be wrong.
    sizes: bool,
    /// Nobody knows which files they are: the crashes stay as they are.
    unknown: bool,
}

/// A file that was inspected and is still open.
struct Inspected {
    file: Arc<File>,
    path: PathBuf,
    claims: UnopenedSlots,
    /// It was inspected to its end.
    through: bool,
}

impl Volume {
    /// Crashes whose traces are not mended yet, with those that nobody has agreed to believe.
    pub fn unrecovered(&self) -> Vec<Unrecovered> {
        self.session().ledger().map_or_else(Vec::new, |ledger| ledger.unrecovered())
    }

    /// What a person should know of the vault as it was found when it was opened.
    pub fn notice(&self) -> Option<&'static str> {
        self.session().notice()
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
        if crashes.is_empty() && !self.has_unknown_journals() {
            return Ok(RecoveryReport { complete: true, ..RecoveryReport::default() });
        }
        let mut run = Run {
            volume: self,
            ledger: &ledger,
            crashes,
            report: RecoveryReport::default(),
            unfinished: Unfinished::default(),
            batch: Vec::new(),
            progress,
        };
        let walked = run.walk();
        let finished = run.finish_batch();
        let stopped = walked?.is_break();
        finished?;
        run.finish(stopped)
    }

    /// True if one of the keys that recovery waits for can be used, and could not when this was asked
    /// before: `usable` are those that could.
    pub fn has_key_come_back(&self, usable: &mut BTreeSet<KeyId>) -> bool {
        let mut keys: Vec<KeyId> =
            self.unrecovered().into_iter().filter_map(|crash| crash.waiting).flatten().collect();
        keys.sort_unstable();
        keys.dedup();
        let health = match keys.is_empty() {
            true => Vec::new(),
            false => self.keyring.service().health(&keys),
        };
        let now = health.into_iter().filter(|(_, health)| *health == KeyHealth::Usable);
        let now: BTreeSet<KeyId> = now.map(|(key, _)| key).collect();
        let come_back = !now.is_subset(usable);
        *usable = now;
        come_back
    }

    /// False if nothing can have changed since a recovery that waits for keys.
    fn is_worth_a_look(&self, crash: &Unrecovered) -> bool {
        let Some(keys) = &crash.waiting else { return true };
        let health = self.keyring.service().health(keys);
        health.iter().any(|(_, health)| *health == KeyHealth::Usable)
    }
}

impl Run<'_> {
    fn walk(&mut self) -> Result<ControlFlow<()>> {
        self.unfinished.files = vec![Intents::default(); self.crashes.len()];
        let mut descent = Descent::new(self.volume)?;
        while let Some((visit, dir)) = descent.step()? {
            for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
                self.report.scanned += 1;
                self.file(&visit, &dir, entry)?;
                if self.batch.len() >= BATCH {
                    self.finish_batch()?;
                }
                if (self.progress)(&self.report).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        for Missed { why, .. } in descent.missed() {
            // What is below a mount would lose its excuse unseen. Whoever takes entries away from
            // outside, or leaves directories without a name, could go on for ever, and gains more from
            // a lasting excuse than anybody else.
            log::warn!("recovery has not seen everything: {why}");
            self.unfinished.unknown |= !matches!(why, Unseen::Vanished | Unseen::Nameless);
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
                self.failed(visit.path_of(entry), None, error);
                return Ok(());
            }
        };
        let claims = match self.concerned(&held) {
            Ok(Some(claims)) => claims,
            Ok(None) => return Ok(()),
            Err(VolumeError::Io(Errno::ACCESS | Errno::PERM)) if self.is_somebody_elses(&held) => {
                let what = "it is somebody else's and cannot be opened: no session has changed it";
                self.report.spoil(visit.path_of(entry), what.to_owned());
                return Ok(());
            }
            Err(error) => {
                self.failed(visit.path_of(entry), None, error);
                return Ok(());
            }
        };
        self.report.examined += 1;
        let ino = self.volume.tree.inodes.shown(held.found().st_ino);
        let open = |flags| open_noatime(flags, |flags| held.open_file(flags));
        let open = || policy_of(dir).and_then(|policy| self.volume.files.open(ino, &policy, open));
        let opened = match open() {
            // While it is open here, nobody gets a lease on it.
            Err(VolumeError::Io(Errno::AGAIN)) => {
                let kept = held.open_file_waiting(OFlags::RDWR);
                let opened = open();
                drop(kept);
                opened
            }
            other => other,
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                self.failed(visit.path_of(entry), Some(&claims), error);
                return Ok(());
            }
        };
        let path = visit.path_of(entry);
        if claims.0.is_empty() && file.content().header().is_none() && file.size() == 0 {
            self.report.emptied.push(path.clone());
        }
        let through = match self.look_through(&file) {
            Ok(Inspection::Through { spoiled }) => {
                if spoiled {
                    let what = "bytes were lost in the crash, or are not authentic".to_owned();
                    self.report.spoil(path.clone(), what);
                }
                true
            }
            Ok(Inspection::Stopped) => {
                self.unfinished.unknown = true;
                false
            }
            Err(error) => {
                self.failed(path.clone(), Some(&claims), error);
                false
            }
        };
        self.batch.push(Inspected { file, path, claims, through });
        Ok(())
    }

    /// Mends a file step by step.
    fn look_through(&mut self, file: &File) -> Result<Inspection> {
        let writable = match file.content().needs_recovery() {
            true => file.must_be_writable(),
            false => Ok(()),
        };
        // The position is noted for the id that the file proves, not for the one that it claims.
        let id = file.content().header().map(|header| header.file);
        let mut noted = 0;
        loop {
            let step = match &writable {
                Ok(()) => file.content().recover(STEP)?,
                // What has to be mended, and cannot be now, keeps its excuse.
                Err(_) => file.content().examine(STEP)?,
            };
            match step {
                Mended::All { spoiled } => return Ok(Inspection::Through { spoiled }),
                Mended::UpTo(bytes) => {
                    if let Some(file) = id.filter(|_| bytes - noted >= NOTED) {
                        self.ledger.set_cursor(Cursor { file, bytes })?;
                        noted = bytes;
                    }
                    if (self.progress)(&self.report).is_break() {
                        return Ok(Inspection::Stopped);
                    }
                }
            }
        }
    }

    /// What a file claims to be, if a crashed session may have been changing it; one without any header
    /// claims nothing, and is looked at as well. The attributes are read before it is opened: opening
    /// may lend its mode, which moves the change time.
    fn concerned(&self, held: &Handle) -> Result<Option<UnopenedSlots>> {
        let opened = open_noatime(OFlags::RDONLY, |flags| held.open_file(flags));
        let probe = match opened {
            Err(Errno::AGAIN) => held.open_file_waiting(OFlags::RDONLY)?,
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
        let bare = held.found().st_size > 0 && page.iter().take(HEADER_AREA).all(|byte| *byte == 0);
        let journals = self.volume.files.shared().crashed_journals();
        let journaled =
            journals.is_some_and(|journals| slots.iter().any(|header| journals.has(header.file)));
        if !claimed && !bare && !journaled && !has_odd_size(held.found(), &page) {
            return Ok(None);
        }
        Ok(Some(UnopenedSlots(slots)))
    }

    /// True if this is the daemon of an ordinary user, and the file another's: no such daemon made it.
    fn is_somebody_elses(&self, held: &Handle) -> bool {
        !self.volume.tree.is_root() && !self.volume.tree.is_ours(held.found())
    }

    /// Notes that a file keeps its excuse, if it can be looked at later; `claims`: what it says it is.
    fn failed(&mut self, path: PathBuf, claims: Option<&UnopenedSlots>, error: VolumeError) {
        match error {
            // The key that was refused counts, whatever else the file names.
            VolumeError::KeyUnusable(key) | VolumeError::WrappedElsewhere(key) => {
                self.unfinished.keys.insert(key);
            }
            // What is not authentic is excused by nothing.
            VolumeError::Tampered(_)
            | VolumeError::Misplaced(_)
            | VolumeError::Lost(_)
            | VolumeError::ForeignKey { .. } => {
                log::error!("recovery: {error}");
                self.report.spoil(path, error.to_string());
                return;
            }
            other => {
                log::error!("recovery: a file could not be looked through: {other}");
                self.unfinished.again = true;
            }
        }
        match claims {
            Some(claims) => self.unfinished.add(&self.crashes, claims),
            None => self.unfinished.unknown = true,
        }
    }

    /// Makes what was mended durable, then seals it in one slot of the header, and then in the other.
    fn finish_batch(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let mut synced = Ok(());
        // The last of these writes is durable with the next sync: that of the next batch, or the one
        // before the crashes are dropped.
        for _ in 0..2 {
            synced = synced.and_then(|()| self.volume.sync_all(SealEffort::Brief));
            if synced.is_ok() {
                self.confirm();
            }
        }
        for one in std::mem::take(&mut self.batch) {
            let ino = one.file.ino();
            drop(one);
            self.volume.files.release(ino);
        }
        synced
    }

    fn confirm(&mut self) {
        // A header between the steps of a re-wrap is left alone.
        let volume = self.volume;
        let _turn = volume.rewraps.lock();
        for at in 0..self.batch.len() {
            let Some(one) = self.batch.get_mut(at).filter(|one| one.through) else { continue };
            let error = match one.file.content().confirm() {
                Ok(true) => continue,
                Ok(false) => VolumeError::Io(Errno::AGAIN),
                Err(error) => error,
            };
            one.through = false;
            let (path, claims) = (one.path.clone(), one.claims.clone());
            self.failed(path, Some(&claims), error);
        }
    }

    /// The crashes are mended once the last seal is durable.
    fn finish(mut self, stopped: bool) -> Result<RecoveryReport> {
        self.report.waiting = self.unfinished.keys.iter().map(KeyId::to_string).collect();
        if stopped || self.unfinished.unknown {
            return Ok(self.report);
        }
        self.volume.sync_all(SealEffort::Brief)?;
        let words = self.crashes.iter().map(|crash| crash.word);
        let files = std::mem::take(&mut self.unfinished.files).into_iter();
        let sizes = self.unfinished.sizes;
        let remainders = words.zip(files).map(|(word, files)| Remainder { word, files, sizes });
        let remainders: Vec<_> = remainders.collect();
        let keys: Vec<KeyId> = self.unfinished.keys.iter().copied().collect();
        // The record has no room for many keys: those are known until the end of the session.
        let known = !self.unfinished.again;
        self.ledger.recovered(&remainders, known.then_some(&keys[..]))?;
        let shared = self.volume.files.shared();
        shared.set_crashes(self.ledger.unrecovered(), self.ledger.cursor());
        if !self.unfinished.again {
            self.volume.drop_recovered_journals()?;
        }
        self.report.complete = !self.unfinished.again;
        log::info!(
            "volume {}: recovery looked through {} of {} files",
            self.volume.id(),
            self.report.examined,
            self.report.scanned
        );
        Ok(self.report)
    }
}

impl Unfinished {
    /// Adds a file that says this of itself to the crashes that excuse it. Nothing excuses a lie: it is
    /// not authentic, and the file that it names says so, if it was looked through.
    fn add(&mut self, crashes: &[Unrecovered], claims: &UnopenedSlots) {
        let excused =
            |header: &FileHeader| crashes.iter().any(|crash| explains(crash, header, true));
        self.sizes |= !claims.0.iter().any(excused);
        for (crash, files) in crashes.iter().zip(&mut self.files) {
            for header in claims.0.iter().filter(|header| explains(crash, header, true)) {
                files.add(header.file);
            }
        }
    }
}

impl RecoveryReport {
    fn spoil(&mut self, path: PathBuf, why: String) {
        if !self.spoiled.iter().any(|(known, _)| *known == path) {
            self.spoiled.push((path, why));
        }
    }
}

/// What came of inspecting a file.
enum Inspection {
    Through { spoiled: bool },
    Stopped,
}

/// What an unopened file says of itself, in each slot of its header.
#[derive(Clone)]
struct UnopenedSlots(Vec<FileHeader>);
