//! Makes what is dirty durable and seals it: from time to time, and at the end of a session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::volume::content::SealEffort;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::files::open_files::Parked;
use crate::volume::model::error::Result;

/// With this many unsynced files, one sync of the filesystem is cheaper than one of each.
const FEW: usize = 8;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The vault says that it is closed.
    Cleanly,
    /// Writing a file failed: the next session looks at it as after a crash.
    InDoubt,
}

impl Volume {
    /// Makes durable what has been dirty for at least `age`, seals those files, and saves the list of
    /// shown times. A file whose sync fails does not hold up the others.
    ///
    /// # Errors
    /// `Io` when the disk failed: the first of all failures, after everything was tried.
    pub fn flush(&self, age: Duration) -> Result<()> {
        self.flush_and_seal(age, SealEffort::Brief)
    }

    fn flush_and_seal(&self, age: Duration, effort: SealEffort) -> Result<()> {
        let old = |since: Option<Instant>| since.is_some_and(|since| since.elapsed() >= age);
        let due: Vec<_> =
            self.files.all().into_iter().filter(|file| old(file.content().dirty_since())).collect();
        let parked_due = self.files.parked().iter().any(|(_, _, since)| old(*since));
        let synced = if due.is_empty() && !parked_due {
            Ok(())
        } else if !parked_due && due.len() <= FEW {
            self.sync_each(&due)
        } else {
            self.sync_all(effort)
        };
        for file in due {
            if let Err(error) = file.content().seal(effort) {
                log::debug!("inode {}: not sealed: {error}", file.ino());
            }
        }
        self.raise_seals(&old);
        self.files.sweep();
        self.save_times();
        synced
    }

    /// Raises the seals of files that are synced so often that they never get old enough for the seal
    /// above.
    fn raise_seals(&self, is_old: &impl Fn(Option<Instant>) -> bool) {
        for file in self.files.all() {
            if is_old(file.content().above_seal_since())
                && let Err(error) = file.content().raise_seal()
            {
                log::debug!("inode {}: its seal stays as it is: {error}", file.ino());
            }
        }
    }

    /// One sync of the filesystem for all dirty files, open or not.
    pub(in crate::volume) fn sync_all(&self, effort: SealEffort) -> Result<()> {
        let open: Vec<_> = self
            .files
            .all()
            .into_iter()
            .filter_map(|file| file.content().before_sync().map(|at| (file, at)))
            .collect();
        let parked = self.files.parked_before_sync();
        // What is written while this runs stays dirty: its generation is a later one.
        let mut outcome = self.sync_everything();
        if let Err(error) = &outcome {
            // The error names no file and is reported only once, so each file is synced by itself.
            log::error!("the backing filesystem could not be synced whole: {error}");
        }
        for (file, generation) in &open {
            let synced = file.content().synced_elsewhere(*generation);
            outcome = outcome.and(noted(file.ino(), synced));
        }
        for (ino, generation) in parked {
            match self.files.parked_is_synced(ino, generation) {
                Parked::Clean => self.seal_closed(ino, effort),
                Parked::Doubtful => outcome = outcome.and(noted(ino, self.sync_parked(ino))),
                Parked::Dirty => {}
            }
        }
        outcome
    }

    /// Syncs each of the files, whatever becomes of the others; fails with the first error.
    fn sync_each(&self, files: &[Arc<File>]) -> Result<()> {
        let mut outcome = Ok(());
        for file in files {
            outcome = outcome.and(noted(file.ino(), self.sync_unasked(file)));
        }
        outcome
    }

    /// Syncs a file that nobody has open by itself, after a sync of them all has failed: what was
    /// written of it may be gone, so it is written again first. A failure is kept for whoever opens it
    /// next.
    fn sync_parked(&self, ino: u64) -> Result<()> {
        self.files.parked_sync_failed(ino);
        self.sync_unasked(self.open_briefly(ino)?.file())
    }

    /// Seals a file that nobody has open. Its old seal is a lower bound too, so a failure is not
    /// worth more than a note.
    fn seal_closed(&self, ino: u64, effort: SealEffort) {
        let sealed = self.open_briefly(ino).and_then(|opened| opened.file().content().seal(effort));
        if let Err(error) = sealed {
            log::debug!("inode {ino}: not sealed: {error}");
        }
    }

    /// Ends the session: everything is synced and sealed, and the vault is free.
    ///
    /// # Errors
    /// `Io` when something could not be made durable: the session stays marked as unclean.
    pub fn end(&self) -> Result<Ended> {
        if self.options.read_only {
            return Ok(Ended::Cleanly);
        }
        self.files.close_all_idle();
        // The first round syncs the contents and seals; the second syncs the seals.
        // After it nothing excuses what a failed call left, so all of that is looked at now.
        self.flush_and_seal(Duration::ZERO, SealEffort::ForFailures)?;
        self.flush_and_seal(Duration::ZERO, SealEffort::ForFailures)?;
        if self.files.in_doubt() {
            log::warn!("writing a file failed: the next session looks at it as after a crash");
            return Ok(Ended::InDoubt);
        }
        self.save_dir_policies();
        if self.times.awaits_sync() {
            self.sync_everything()?;
            self.save_times();
        }
        self.session().end()?;
        Ok(Ended::Cleanly)
    }
}

fn noted(ino: u64, synced: Result<()>) -> Result<()> {
    if let Err(error) = &synced {
        log::error!("inode {ino}: background sync: {error}");
    }
    synced
}
