//! Changing attributes.

use rustix::fs::{Gid, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};

use crate::volume::access::privileges::drop_at;
use crate::volume::backing::handle::Handle;
use crate::volume::backing::identity::InodeStat;
use crate::volume::engine::Volume;
use crate::volume::model::attr::{Attr, AttrChange, NewTime, Timestamp};
use crate::volume::model::caller::Caller;
use crate::volume::model::error::Result;
use crate::volume::session::times::Times;

impl Volume {
    /// Changes what `change` names and returns the attributes after it.
    ///
    /// Size first, then owner (which takes setuid and setgid away), mode and times: what was asked
    /// for stands at the end.
    ///
    /// # Errors
    /// `ReadOnly`, `Stale`; what truncating a file gives; those of the backing filesystem. Where only
    /// a size was asked for, and times, the size is what it was: the kernel goes on by it.
    pub fn set_attr(&self, ino: u64, change: &AttrChange, caller: Caller) -> Result<Attr> {
        self.tree.writable()?;
        self.keep_closed(ino, change)?;
        let mut change = *change;
        let resized = match change.size {
            Some(size) => Some(self.resize(ino, size, &mut change, caller)?),
            None => None,
        };
        let bare = change.mode.or(change.uid).or(change.gid).is_none();
        match (self.change_others(ino, &change), resized.filter(|_| bare)) {
            // An error would say that the file has its old size, and the next append would go there.
            (Err(error), Some(known)) => {
                log::warn!(
                    "inode {ino} has its new size, and its times are not all right: {error}"
                );
                Ok(known)
            }
            (outcome, _) => outcome,
        }
    }

    /// Returns what is known of the file, if it cannot be looked at again.
    fn resize(&self, ino: u64, size: u64, change: &mut AttrChange, caller: Caller) -> Result<Attr> {
        let held = self.hold(ino)?;
        let mut known = self.shown_attr(ino, &held.stat()?)?;
        // Also a truncation to the size that the file has is a modification.
        if known.size == size {
            change.mtime = change.mtime.or(Some(NewTime::Now));
        }
        if !caller.keeps_privileges() {
            let _times = self.times.hold(ino);
            drop_at(&held, caller)?;
        }
        self.truncate(ino, size, caller)?;
        known.set_size(size);
        Ok(known)
    }

    fn change_others(&self, ino: u64, change: &AttrChange) -> Result<Attr> {
        self.tree.set_ids.note(change.mode.unwrap_or(0));
        let held = self.hold(ino)?;
        let since = self.tree.inodes.resized(ino);
        let times = self.times.hold(ino);
        self.change_inode(ino, &held, change)?;
        // Not held over what follows: showing a size may open the file, which takes the same lock.
        drop(times);
        if (change.mode.is_some() || change.gid.is_some())
            && let Some(dir) = self.tree.dirs.find(ino)
        {
            dir.forget_rules();
        }
        Ok(self.telling_size(self.shown_attr(ino, &held.stat()?)?, since))
    }

    fn change_inode(&self, ino: u64, held: &Handle, change: &AttrChange) -> Result<()> {
        if change.uid.is_some() || change.gid.is_some() {
            let _telling = self.tree.owners.write();
            held.set_owner(change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw))?;
            self.tree.inodes.note_owner(ino, self.tree.identity(&InodeStat::of(held)?));
        }
        if let Some(mode) = change.mode {
            held.set_mode(mode & 0o7777)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            self.set_times(ino, held, change)?;
        }
        Ok(())
    }

    /// A time that a user sets is shown from then on. If it is shown already, the backing time stays:
    /// backups of the vault go by it. Locks: the inode's times.
    fn set_times(&self, ino: u64, held: &Handle, change: &AttrChange) -> Result<()> {
        let behind = match change.mtime {
            Some(NewTime::At(time)) => {
                let now = Times::of(&held.stat()?);
                self.times.mtime_behind(ino, now, time.as_nanos()).map(Timestamp::from_nanos)
            }
            _ => None,
        };
        if let (Some(NewTime::At(time)), None) = (change.mtime, behind)
            && self.times.will_be_set(ino, time.as_nanos())
            && let Err(error) = self.sync_times()
        {
            log::warn!("inode {ino}: after a crash another time may be shown: {error}");
        }
        held.set_times(&Timestamps {
            last_access: timespec(change.atime),
            last_modification: timespec(behind.map(NewTime::At).or(change.mtime)),
        })?;
        if change.mtime.is_some() && behind.is_none() {
            self.times.remove(ino);
        }
        Ok(())
    }
}

fn timespec(time: Option<NewTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(NewTime::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(NewTime::At(time)) => Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) },
    }
}
