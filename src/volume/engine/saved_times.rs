//! The list of shown times that outlives a session.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::fdatasync;

use super::Volume;
use crate::envelope::{ShownTime, TimesKey};
use crate::volume::backing::beneath::Name;
use crate::volume::backing::own_file;
use crate::volume::files::file::File;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::options::Options;
use crate::volume::session::times::{Saving, ShownTimes};

const TIMES: Name<'static> = Name::literal("times");
/// Bytes that the list of shown times may have: two million files, each of them twice.
const TIMES_MAX: usize = 256 << 20;
/// Bytes that the list of shown times may have beyond twice its use.
const TIMES_SLACK: usize = 64 * 1024;

impl Volume {
    /// Appends to the saved list of shown times what came since the last call.
    ///
    /// *Crash*: what the list says is of single times. An inode of which a record did not reach the disk
    /// is shown as it is there; a record of an inode that did not is about another time than it has, and
    /// the one of that time is there still. So it is a hint, and nothing fails because it cannot be
    /// written.
    pub(in crate::volume) fn save_times(&self) {
        if let Err(error) = self.append_times(&mut self.times.saving()) {
            log::warn!("the list of shown times is not saved: {error}");
        }
    }

    /// The same, durably.
    pub(in crate::volume) fn sync_times(&self) -> Result<()> {
        let mut saving = self.times.saving();
        self.append_times(&mut saving)?;
        if saving.unsynced {
            // The one that has the records, whatever has its name by now.
            let list = match saving.list.take() {
                Some(list) => Some(list),
                None => own_file::to_read(self.tree.meta(), TIMES)?,
            };
            list.map_or(Ok(()), fdatasync)?;
        }
        saving.unsynced = false;
        self.times.saved();
        Ok(())
    }

    /// Makes it durable which times to show of files that were re-wrapped, once theirs have moved.
    ///
    /// *Crash*: the files have the times from before, of which the plans say nothing; so they count
    /// when the times have moved, and not until then.
    pub(in crate::volume) fn plan_times<'f>(&self, files: impl IntoIterator<Item = &'f File>) {
        let mut planned = Ok(());
        for file in files {
            if let Some(mtime) = file.content().owed_move() {
                planned = planned.and(self.times.plan(file.backing_fd(), file.ino(), mtime));
            }
        }
        if let Err(error) = planned.map_err(VolumeError::from).and_then(|()| self.sync_times()) {
            log::warn!("files that were re-wrapped may be shown as changed: {error}");
        }
    }

    fn append_times(&self, saving: &mut Saving) -> Result<()> {
        let unsaved = self.times.take_unsaved();
        if self.options.read_only || unsaved.is_empty() {
            return Ok(());
        }
        let list = match saving.list.take() {
            // A re-wrap appends after each file. If somebody else has put another list there, the records
            // are missing in that, until the next sync.
            Some(list) => list,
            None => match own_file::to_write(self.tree.meta(), TIMES)? {
                Some(list) => list,
                // There was none, or one that is not to be written to.
                None => return self.save_whole(saving),
            },
        };
        // Over the rest of a record that a full disk cut short, so that records stay in step.
        let length = u64::try_from(rustix::fs::fstat(&list)?.st_size).unwrap_or(0);
        let end = length - length % ShownTime::LEN as u64;
        if is_overgrown(end, self.times.saved_len().max(saving.whole)) {
            return self.save_whole(saving);
        }
        saving.unsynced = true;
        rustix::io::pwrite(&list, &unsaved, end)?;
        saving.list = Some(list);
        Ok(())
    }

    fn save_whole(&self, saving: &mut Saving) -> Result<()> {
        let all = self.times.all();
        own_file::replace(self.tree.meta(), TIMES, &all)?;
        *saving = Saving { whole: all.len(), ..Saving::default() };
        self.times.saved();
        Ok(())
    }
}

/// The saved list, made shorter when most of it has been overtaken.
pub(in crate::volume) fn load_times(
    meta: &OwnedFd,
    key: Arc<TimesKey>,
    options: &Options,
) -> ShownTimes {
    let saved = match own_file::read(meta, TIMES, (TIMES_MAX, "list of shown times")) {
        Err(error @ VolumeError::Tampered(_)) => {
            log::warn!("{error}: it is made anew");
            None
        }
        Err(error) => {
            log::warn!("the list of shown times cannot be read: {error}");
            None
        }
        Ok(saved) => saved,
    };
    let saved = saved.unwrap_or_default();
    let times = ShownTimes::parse(&saved, key);
    let all = times.all();
    times.saving().whole = all.len();
    if !options.read_only
        && is_overgrown(saved.len() as u64, all.len())
        && let Err(error) = own_file::replace(meta, TIMES, &all)
    {
        log::warn!("the list of shown times is not made shorter: {error}");
    }
    times
}

/// True for a list of this length most of which has been overtaken.
fn is_overgrown(length: u64, in_use: usize) -> bool {
    length > (2 * in_use + TIMES_SLACK) as u64
}
