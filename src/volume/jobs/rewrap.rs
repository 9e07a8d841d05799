//! Re-wrap: every file key and directory key moves to the current material of its KMS key, or to
//! another KMS key. Headers only; contents are not touched.
//!
//! Per batch: (1) the new wrap goes into the slot that is not durable; (2) a durable record says which
//! times to show once (3) the backing times have moved; (4) one sync of the filesystem; (5) the old slot
//! is overwritten too. A crash leaves one good slot at any time, and the job starts again where headers
//! still name old material: the headers themselves are its memory. Until (3) files have the times from
//! before, and then those of (2). Directories come first and accept both keys (R9) until a pass finds
//! nothing left to do.

mod nameless;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::Serialize;

use super::descent::{Descent, Missed};
use super::walk::{Entry, Role, Visit, Walk};
use crate::envelope::{DirDescriptor, FileHeader, Recipient, Recipients};
use crate::id::KeyId;
use crate::volume::backing::handle::Handle;
use crate::volume::backing::handle::open_noatime;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::files::file_key::FilePolicy;
use crate::volume::files::unopened::read_slots;
use crate::volume::keys::keyring::Purpose;
use crate::volume::keys::service::KeyHealth;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::dir::Dir;

/// Files between two syncs of the filesystem.
const BATCH: usize = 1000;
/// What to do about a file that a re-wrap does not take in.
const TAKE_IN: &str = ": it was put there; if on purpose, 'kmsfs rewrap --take-in' brings it under \
                       the key of the directory, and lets the users of that read it";
/// What to do about a file or directory that nobody may write to.
const IMMUTABLE: &str =
    ": if it is immutable, 'chattr -i' and the re-wrap once more bring it along";
/// Passes after which files that keep failing are given up.
const PASSES: u32 = 4;

/// What to re-wrap.
#[derive(Debug, Clone, Copy, Default)]
pub struct RewrapJob {
    /// Only what is under this key; everything if `None`.
    pub from: Option<KeyId>,
    /// The key that takes over, from all others if there is no `from`. If `None`, the current
    /// material of the same key; without `from`, that of the directory's.
    pub to: Option<KeyId>,
    /// What becomes of files under a key that their directory does not accept.
    pub strangers: Strangers,
}

/// What a re-wrap does with a file under a key that its directory does not accept: somebody put it
/// there, behind the back of the mount. Under the directory's key, its users can read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strangers {
    /// It stays as it is, and is reported.
    #[default]
    Refused,
    /// Somebody has looked and wants it: it gets the key that the others get.
    TakenIn,
}

/// How far a re-wrap is, and at the end what it did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RewrapReport {
    /// Files in the volume, as counted at the start.
    pub total: u64,
    /// Files looked at in this pass.
    pub scanned: u64,
    /// Files whose header was re-wrapped.
    pub rewrapped: u64,
    /// Directories whose descriptor was re-wrapped.
    pub directories: u64,
    /// Passes over the volume.
    pub passes: u32,
    /// Backing paths that could not be re-wrapped, with the reason.
    pub failed: Vec<(PathBuf, String)>,
    /// True when a last pass found nothing left.
    pub complete: bool,
}

/// Files that were re-wrapped and whose old slot is still there.
type Batch = Vec<(Arc<File>, PathBuf)>;

struct Run<'a> {
    volume: &'a Volume,
    job: RewrapJob,
    report: RewrapReport,
    batch: Batch,
    /// There while the batch is not empty.
    turn: Option<MutexGuard<'a, ()>>,
    /// As many as can be open at once beside everything else.
    batch_size: usize,
    /// How many of the failed are under a key that their directory does not accept.
    strangers: usize,
    /// How often directories had come to need a former key when the last pass began.
    kept: u64,
    progress: &'a mut dyn FnMut(&RewrapReport) -> ControlFlow<()>,
    next: &'a mut dyn FnMut(&std::path::Path) -> ControlFlow<()>,
    changed: &'a mut dyn FnMut(&std::path::Path),
}

impl Volume {
    /// Re-wraps. `progress` is told how far it is and may stop it at any point; `changed` is given
    /// the backing path of every file whose ciphertext changed.
    ///
    /// # Errors
    /// `KeyUnusable` for a key that the job needs; `FormerKeys` where files of too many of them
    /// wait for a re-wrap; `ReadOnly`; those of the backing filesystem.
    /// Files that cannot be re-wrapped are reported, not an error.
    pub fn rewrap(
        &self,
        job: RewrapJob,
        progress: &mut dyn FnMut(&RewrapReport) -> ControlFlow<()>,
        changed: &mut dyn FnMut(&std::path::Path),
    ) -> Result<RewrapReport> {
        self.run_rewrap(job, progress, &mut |_| ControlFlow::Continue(()), changed)
    }

    /// As [`Volume::rewrap`]; `next` is given the backing path of every file before its ciphertext
    /// changes. If it does not agree, the file stays as it is, and `progress` should end the rest.
    ///
    /// # Errors
    /// As there.
    pub fn rewrap_announced(
        &self,
        job: RewrapJob,
        progress: &mut dyn FnMut(&RewrapReport) -> ControlFlow<()>,
        next: &mut dyn FnMut(&std::path::Path) -> ControlFlow<()>,
    ) -> Result<RewrapReport> {
        self.run_rewrap(job, progress, next, &mut |_| {})
    }

    fn run_rewrap(
        &self,
        job: RewrapJob,
        progress: &mut dyn FnMut(&RewrapReport) -> ControlFlow<()>,
        next: &mut dyn FnMut(&std::path::Path) -> ControlFlow<()>,
        changed: &mut dyn FnMut(&std::path::Path),
    ) -> Result<RewrapReport> {
        self.tree.writable()?;
        for key in [job.from, job.to].into_iter().flatten() {
            self.must_be_usable(key)?;
        }
        let report = RewrapReport { total: self.count_files()?, ..Default::default() };
        let mut run = Run {
            volume: self,
            job,
            report,
            batch: Vec::new(),
            turn: None,
            batch_size: batch_size(),
            strangers: 0,
            kept: 0,
            progress,
            next,
            changed,
        };
        let finished = run.all();
        // Whatever happened, handles are given back and what was written is made durable: directories
        // as well, if no file was re-wrapped after them.
        let finished_batch = run.finish_batch();
        let synced = self.sync_everything();
        let report = run.report;
        finished.and(finished_batch).and(synced)?;
        Ok(report)
    }

    /// Directories are switched to a key before anything is wrapped under it.
    fn must_be_usable(&self, key: KeyId) -> Result<()> {
        self.keyring.current_material(key)?;
        let health = self.keyring.service().health(&[key]);
        match health.iter().any(|(_, health)| *health == KeyHealth::Unusable) {
            true => Err(VolumeError::KeyUnusable(key)),
            false => Ok(()),
        }
    }

    fn count_files(&self) -> Result<u64> {
        let (mut walk, mut total) = (Walk::new(&self.root)?, 0);
        // The passes report what cannot be read.
        while let Some(visit) = walk.step().transpose() {
            let Ok(visit) = visit else { continue };
            total += visit.entries.iter().filter(|entry| entry.role == Role::File).count() as u64;
        }
        Ok(total)
    }
}

impl Run<'_> {
    fn all(&mut self) -> Result<()> {
        let mut finished = false;
        while self.report.passes < PASSES {
            let before = (self.report.rewrapped, self.report.directories);
            self.report.passes += 1;
            self.report.scanned = 0;
            self.report.failed.clear();
            self.strangers = 0;
            if self.moves_keys() {
                self.directories(Mark::Accept)?;
            }
            // An open and empty file must not get a key that its directory gives up, and nothing may be
            // about to come under older material.
            self.volume.settle_wraps();
            self.kept = self.volume.tree.kept.load(Ordering::Acquire);
            if self.pass()?.is_break() {
                return Ok(());
            }
            self.finish_batch()?;
            if before == (self.report.rewrapped, self.report.directories) {
                self.report.complete = self.report.failed.is_empty();
                finished = true;
                break;
            }
        }
        // Files that no former key opens do not wait for one.
        let rest_is_done = finished && self.report.failed.len() == self.strangers;
        if rest_is_done && (self.moves_keys() || self.is_for_all()) {
            self.directories(Mark::Finish)?;
            // Whoever has a file open accepts no former key either.
            self.volume.settle_wraps();
        }
        self.volume.save_dir_policies();
        Ok(())
    }

    fn moves_keys(&self) -> bool {
        self.job.to.is_some() && self.job.to != self.job.from
    }

    /// True if every file gets the key of its directory.
    fn is_for_all(&self) -> bool {
        self.job.from.is_none() && self.job.to.is_none()
    }

    fn pass(&mut self) -> Result<ControlFlow<()>> {
        let mut descent = Descent::new(self.volume)?;
        let mut root_key = None;
        while let Some((visit, dir)) = descent.step()? {
            match dir.descriptor() {
                Ok(descriptor) => {
                    root_key.get_or_insert(descriptor.policy);
                    match self.directory(&dir) {
                        Err(error) if is_refused(&error) => self.failed(visit.path(), &error),
                        done => done?,
                    }
                    if self.files(&visit, dir.descriptor()?)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(VolumeError::KeyUnusable(key)) if self.job.from.is_some_and(|f| f != key) => {}
                Err(_) if descent.is_below_unusable() => {}
                Err(error) => self.failed(visit.path(), &error),
            }
        }
        for Missed { path, why } in descent.missed() {
            self.report.failed.push((path, why.to_string()));
        }
        self.take_turn();
        self.nameless()?;
        self.end_turn_without_batch();
        self.volume.rewrap_descriptor(|key| match self.job {
            RewrapJob { from: None, to: None, .. } => root_key,
            _ => self.applies(key).then(|| self.target(key)),
        })?;
        Ok(ControlFlow::Continue(()))
    }

    fn files(&mut self, visit: &Visit, descriptor: &DirDescriptor) -> Result<ControlFlow<()>> {
        for entry in visit.entries.iter().filter(|entry| entry.role == Role::File) {
            self.report.scanned += 1;
            self.take_turn();
            if let Err(error) = self.file(visit, entry, descriptor) {
                self.failed(visit.path_of(entry), &error);
            }
            self.end_turn_without_batch();
            if self.batch.len() >= self.batch_size {
                self.finish_batch()?;
            }
            if (self.progress)(&self.report).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn file(&mut self, visit: &Visit, entry: &Entry, descriptor: &DirDescriptor) -> Result<()> {
        // Only what is gone, or has become something else, needs no new wrap.
        let Some(held) = visit.hold(entry)? else { return Ok(()) };
        let open = |flags| open_noatime(flags, |flags| held.open_file(flags));
        let probe = match open(OFlags::RDONLY) {
            Err(Errno::STALE) => return Ok(()),
            other => other?,
        };
        let slots = read_slots(&probe)?;
        if slots.is_empty() || !slots.iter().any(|slot| self.needs(slot, descriptor)) {
            return Ok(());
        }
        drop(probe);
        self.must_be_accepted(descriptor)?;
        let ino = self.volume.tree.inodes.shown(held.found().st_ino);
        // Whoever moves it to a directory of another key has its wraps until its key has followed. One
        // that has gone from here since is noted, and visited where it is.
        let _wraps = self.volume.tree.wraps.changing(&[ino]);
        if !visit.hold(entry)?.is_some_and(|here| is_same(&here, &held)) {
            return Ok(());
        }
        let policy = self.policy(descriptor, &slots);
        let file = self.volume.files.open(ino, &policy, open)?;
        let path = visit.path_of(entry);
        let moved = file.must_be_writable().and_then(|()| {
            // Before the first byte changes, so that a list that ends here has the file, whatever
            // follows.
            match (self.next)(&path) {
                ControlFlow::Break(()) => Ok(None),
                ControlFlow::Continue(()) => self.rewrap(&file, descriptor).map(Some),
            }
        });
        match moved {
            Ok(None) => {
                drop(file);
                self.volume.files.release(ino);
                Ok(())
            }
            Ok(Some(true)) => {
                // A kill leaves the change time in the system's cache, and must leave the record as well.
                self.volume.save_times();
                (self.changed)(&path);
                self.report.rewrapped += 1;
                self.batch.push((file, path));
                Ok(())
            }
            // The newer slot is as it should be, and a crash came before the older one was.
            Ok(Some(false)) => {
                self.batch.push((file, path));
                self.report.rewrapped += 1;
                Ok(())
            }
            Err(error) => {
                drop(file);
                self.volume.files.release(ino);
                Err(error)
            }
        }
    }

    fn rewrap(&self, file: &File, descriptor: &DirDescriptor) -> Result<bool> {
        let moved = self.rewrap_by(file, |old| self.outdated(old, descriptor))?;
        file.set_policy(self.policy_now(file.ino(), descriptor));
        if !moved {
            file.content().mark_rewrapped()?;
        }
        Ok(moved)
    }

    /// `outdated`: the key to wrap for instead, where a wrap is not as it should be.
    fn rewrap_by(
        &self,
        file: &File,
        outdated: impl Fn(&Recipient) -> Result<Option<KeyId>>,
    ) -> Result<bool> {
        let keyring = &self.volume.keyring;
        let moved = file.content().rewrap(|header| {
            let mut recipients = header.recipients.iter();
            if !recipients.any(|old| outdated(old).is_ok_and(|to| to.is_some())) {
                return Ok(None);
            }
            let purpose = Purpose::File(header.file);
            let wrap = |old: &Recipient| match outdated(old)? {
                Some(to) => keyring.rewrap(old, to, purpose),
                None => Ok(old.clone()),
            };
            let mut wrapped = header.recipients.iter().map(wrap).collect::<Result<Vec<_>>>()?;
            // Two wraps that move to the same key are one.
            let mut seen = HashSet::new();
            wrapped.retain(|recipient| seen.insert(recipient.key));
            Ok(Some(Recipients::new(wrapped)?))
        })?;
        if let Some(header) = file.content().header()
            && let Some(recipient) = header.recipients.first()
        {
            file.set_recipient(recipient);
        }
        Ok(moved)
    }

    /// The policy of a file, which users may have open as well, follows from all of its directories.
    fn policy_now(&self, ino: u64, descriptor: &DirDescriptor) -> FilePolicy {
        let known = self.volume.tree.inodes.knows(ino).then(|| self.volume.file_policy(ino));
        known.and_then(Result::ok).unwrap_or_else(|| FilePolicy::of(descriptor))
    }

    /// Before a file is looked at: what another re-wrap, or recovery, has begun with it is done then.
    fn take_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(self.volume.rewraps.lock());
        }
    }

    fn end_turn_without_batch(&mut self) {
        if self.batch.is_empty() {
            self.turn = None;
        }
    }

    /// Overwrites the old slots of a batch once the new ones are durable.
    fn finish_batch(&mut self) -> Result<()> {
        let finished = self.finish_files();
        self.end_turn_without_batch();
        finished
    }

    fn finish_files(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        self.volume.plan_times(batch.iter().map(|(file, _)| &**file));
        let moved: Vec<_> = batch.iter().map(|(file, _)| file.content().move_time()).collect();
        let mut result = self.make_durable();
        for ((file, path), moved) in batch.into_iter().zip(moved) {
            if result.is_ok()
                && let Err(error) = moved.and_then(|()| file.content().scrub())
            {
                self.failed(path, &error);
            }
            let ino = file.ino();
            drop(file);
            self.volume.files.release(ino);
        }
        if result.is_ok() {
            result = self.make_durable();
        }
        result
    }

    /// The list of shown times comes first: it knows the change times by now. *Crash*: the filesystem may
    /// have the list and not the times of the files, which are those from before then. The list says
    /// still what to show for these: that ends when a sync of the files is done.
    fn make_durable(&self) -> Result<()> {
        if let Err(error) = self.volume.sync_times() {
            log::warn!("files that were re-wrapped may be shown as changed: {error}");
        }
        self.volume.flush(std::time::Duration::ZERO)
    }

    fn directory(&mut self, dir: &Dir) -> Result<()> {
        let descriptor = dir.descriptor()?;
        if self.outdated(&descriptor.recipient, descriptor)?.is_none() {
            return Ok(());
        }
        let keyring = &self.volume.keyring;
        let changed = self.volume.change_descriptor(dir, |now| {
            let Some(to) = self.outdated(&now.recipient, now)? else { return Ok(None) };
            let recipient = keyring.rewrap(&now.recipient, to, Purpose::Directory(now.dir))?;
            Ok(Some(DirDescriptor { recipient, ..now.clone() }))
        })?;
        self.report.directories += u64::from(changed);
        Ok(())
    }

    /// Before files move, makes their directories accept both keys; when all have moved, only the new
    /// one.
    fn directories(&mut self, mark: Mark) -> Result<()> {
        let mut descent = Descent::new(self.volume)?;
        while let Some((_, dir)) = descent.step()? {
            if dir.descriptor().is_err() {
                continue;
            }
            let changed = self.volume.change_descriptor(&dir, |now| {
                let mut changed = now.clone();
                match (mark, self.job.to) {
                    (Mark::Accept, Some(to)) if now.policy != to && self.applies(now.policy) => {
                        changed.policy = to;
                        changed.previous.retain(|key| *key != now.policy && *key != to);
                        changed.previous.insert(0, now.policy);
                    }
                    // A file that came in since with its key, or that has it since the policy was
                    // changed, would be left without it.
                    (Mark::Finish, _)
                        if self.volume.tree.kept.load(Ordering::Acquire) == self.kept =>
                    {
                        changed.previous.retain(|key| !self.applies(*key));
                    }
                    _ => {}
                }
                Ok(Some(changed))
            });
            match changed {
                // It goes on accepting what it did, and the pass reports it.
                Err(error) if is_refused(&error) => log::warn!("a directory is immutable: {error}"),
                changed => drop(changed?),
            }
        }
        self.volume.sync_everything()
    }

    fn needs(&self, header: &FileHeader, descriptor: &DirDescriptor) -> bool {
        let mut recipients = header.recipients.iter();
        recipients.any(|old| self.outdated(old, descriptor).is_ok_and(|to| to.is_some()))
    }

    /// The key to wrap for instead, or `None` when the wrap is as it should be.
    fn outdated(&self, old: &Recipient, descriptor: &DirDescriptor) -> Result<Option<KeyId>> {
        if !self.applies(old.key) {
            return Ok(None);
        }
        let to = match self.job {
            RewrapJob { from: None, to: None, .. } => descriptor.policy,
            RewrapJob { to: None, strangers: Strangers::TakenIn, .. }
                if !descriptor.accepts(old.key) =>
            {
                descriptor.policy
            }
            // A directory of a third key, in which some files are still under this one.
            RewrapJob { to: Some(to), .. }
                if !descriptor.accepts(to) && !self.applies(descriptor.policy) =>
            {
                descriptor.policy
            }
            _ => self.target(old.key),
        };
        let current = old.key == to && old.material == self.volume.keyring.current_material(to)?;
        Ok((!current).then_some(to))
    }

    /// Nothing comes under a key before its directory accepts that.
    fn must_be_accepted(&self, descriptor: &DirDescriptor) -> Result<()> {
        match self.job.to {
            Some(to) if self.applies(descriptor.policy) && !descriptor.accepts(to) => {
                Err(VolumeError::Stale)
            }
            _ => Ok(()),
        }
    }

    fn applies(&self, key: KeyId) -> bool {
        self.job.from.is_none_or(|from| from == key)
    }

    fn target(&self, key: KeyId) -> KeyId {
        self.job.to.unwrap_or(key)
    }

    /// The keys that a file may be under. A directory that is about to give up its key accepts both by
    /// now.
    fn policy(&self, descriptor: &DirDescriptor, slots: &[FileHeader]) -> FilePolicy {
        let mut policy = FilePolicy::of(descriptor);
        if self.job.strangers == Strangers::TakenIn {
            let named = slots.iter().flat_map(|slot| slot.recipients.iter()).map(|r| r.key);
            policy.accepted.extend(named.filter(|key| self.applies(*key)));
        }
        policy
    }

    fn failed(&mut self, path: PathBuf, error: &VolumeError) {
        let stranger = matches!(error, VolumeError::ForeignKey { .. });
        self.strangers += usize::from(stranger);
        let advice = match error {
            _ if stranger => TAKE_IN,
            error if is_refused(error) => IMMUTABLE,
            _ => "",
        };
        self.report.failed.push((path, format!("{error}{advice}")));
    }
}

/// The backing filesystem lets nobody change this.
fn is_refused(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Io(Errno::PERM))
}

fn batch_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(4096) / 4).unwrap_or(BATCH).clamp(16, BATCH)
}

fn is_same(one: &Handle, other: &Handle) -> bool {
    let number = |held: &Handle| (held.found().st_dev, held.found().st_ino);
    number(one) == number(other)
}

#[derive(Debug, Clone, Copy)]
enum Mark {
    Accept,
    Finish,
}
