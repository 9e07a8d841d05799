//! What a volume does by itself: it syncs what stays dirty, seals what is closed, watches its keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attended::Attended;
use crate::sys;
use crate::threads::{Stop, Threads};
use crate::volume::content::{Mended, SealEffort};
use crate::volume::engine::Volume;
use crate::volume::model::error::Result;
use crate::volume::model::slack::GiveBack;
use crate::volume::session::ledger::Ledger;

/// How often the threads look for work. The keystore is asked whether a key was disabled well within
/// the promised second.
const WATCH: Duration = Duration::from_millis(200);
/// How long contents may stay without a sync (R2e).
const DIRTY_FOR: Duration = Duration::from_secs(30);
/// How often to look for such contents.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a generation of announcements lasts.
const TURN: Duration = Duration::from_secs(300);
/// After this time a recovery that could not see everything is tried again, then after twice as
/// long, and so on.
const RETRY: Duration = Duration::from_secs(60);
const LAST_RETRY: Duration = Duration::from_secs(3600);
/// How often the keys that recovery waits for are asked about.
const WAITING: Duration = Duration::from_secs(5);
/// Bytes of a file that are looked at while others wait.
const MENDED_AT_ONCE: u64 = 4 * 1024 * 1024;

/// The background threads of a volume; stopped and waited for on drop.
///
/// One watches the keys, the other looks after the disk: a slow one must not delay a revocation.
#[derive(Debug, Default)]
pub struct Upkeep(Threads);

impl Volume {
    /// Starts the background threads.
    ///
    /// # Errors
    /// `Io` when the system has no thread left.
    pub fn start_upkeep(self: &Arc<Self>) -> Result<Upkeep> {
        let mut upkeep = Upkeep::default();
        let volume = self.clone();
        upkeep.start("upkeep-keys", move |_| {
            volume.watch_keys();
            volume.tell_sizes();
        })?;
        // On a thread of its own: the others wait for disks.
        let volume = self.clone();
        upkeep.start("upkeep-idle", move |_| volume.files.sweep())?;
        let (volume, mut flushed, mut turned) = (self.clone(), Instant::now(), Instant::now());
        let mut back = GiveBack::default();
        upkeep.start("upkeep-disk", move |_| {
            volume.drop_outdated_pages();
            volume.tidy_up(&mut flushed, &mut back);
            volume.turn_announcements(&mut turned);
        })?;
        if let Some(attended) = Attended::of(self) {
            // On a thread of its own: whoever changes a file may wait for it.
            upkeep.start("upkeep-journal", move |_| attended.drain())?;
        }
        let volume = self.clone();
        let (mut due, mut pause) = (Some(Instant::now()), RETRY);
        let (mut usable, mut asked) = (BTreeSet::new(), None::<Instant>);
        upkeep.start("upkeep-recovery", move |stop| {
            if asked.is_none_or(|asked| asked.elapsed() >= WAITING) {
                asked = Some(Instant::now());
                // Its files were passed over before.
                if volume.has_key_come_back(&mut usable) {
                    due = Some(Instant::now());
                }
            }
            if due.is_some_and(|due| due <= Instant::now()) {
                volume.place_beside(stop);
                due = (!volume.recover_beside(stop)).then(|| Instant::now() + pause);
                pause = (pause * 2).min(LAST_RETRY);
            }
            volume.mend_unsure(stop);
        })?;
        Ok(upkeep)
    }

    /// Recovers from crashes while the volume is used. False if something was left.
    fn recover_beside(&self, stop: &Stop) -> bool {
        match self.recover(&mut |_| stop.flow()) {
            Ok(report) => report.complete,
            Err(error) => {
                log::error!("recovery: {error}: it is tried again later");
                false
            }
        }
    }

    /// Brings the directories of a volume from before places up to date.
    fn place_beside(&self, stop: &Stop) {
        if let Err(error) = self.place_directories(&mut || stop.flow()) {
            log::error!("places of directories: {error}: it is tried again later");
        }
    }

    /// Looks through the files for which a call failed, so that they can be sealed.
    fn mend_unsure(&self, stop: &Stop) {
        for file in self.files.all() {
            while !stop.is_set() && file.content().is_unsure() && !file.content().is_dirty() {
                match file.content().recover(MENDED_AT_ONCE) {
                    Ok(Mended::UpTo(_)) => {}
                    Ok(Mended::All { .. }) | Err(_) => break,
                }
            }
        }
        self.files.sweep();
    }

    /// Begins a new generation of announcements from time to time, and forgets the one before once
    /// everything that it was for is durable (R21).
    fn turn_announcements(&self, turned: &mut Instant) {
        let Some(ledger) = self.session().ledger().cloned() else { return };
        if turned.elapsed() < TURN {
            return;
        }
        *turned = Instant::now();
        let done = match ledger.has_previous() {
            true => self.drop_announcements(&ledger),
            false => ledger.turn().map(drop),
        };
        if let Err(error) = done {
            log::warn!("the announcements of this session stay as they are: {error}");
        }
    }

    fn drop_announcements(&self, ledger: &Ledger) -> Result<()> {
        for file in self.files.all() {
            // Whoever began before the turn is done; whoever begins now is in the new generation.
            file.content().wait_for_writers();
        }
        self.files.sweep();
        self.sync_all(SealEffort::Brief)?;
        if self.files.in_doubt() || self.files.is_any_unsure() {
            return Ok(());
        }
        ledger.drop_previous()
    }

    fn tidy_up(&self, flushed: &mut Instant, back: &mut GiveBack) {
        let crowded = self.files.is_crowded();
        if flushed.elapsed() < FLUSH && !crowded {
            return;
        }
        *flushed = Instant::now();
        let turnover = self.files.closes() + self.tree.inodes.turnover();
        if back.is_due(turnover, Instant::now())
            && let Err(error) = sys::give_memory_back()
        {
            log::warn!("memory is not locked against swap any more: {error}");
        }
        if !self.options.read_only {
            self.save_dir_policies();
            if let Err(error) = self.flush(if crowded { Duration::ZERO } else { DIRTY_FOR }) {
                log::error!("background sync: {error}");
            }
            if crowded {
                self.files.all_were_synced();
            }
        }
    }
}

impl Upkeep {
    /// Starts a thread that does `work` again and again.
    fn start(&mut self, name: &str, mut work: impl FnMut(&Stop) + Send + 'static) -> Result<()> {
        let work = move |stop: &Stop| {
            while !stop.within(WATCH) {
                work(stop);
            }
        };
        Ok(self.0.start(name, work)?)
    }
}
