//! Changing attributes.

use std::sync::PoisonError;

use rustix::fs::{Gid, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};

use super::Volume;
use super::attr::{Attr, AttrChange, NewTime};
use super::error::Result;
use super::handle::Handle;
use super::identity::Seen;
use super::privilege::drop_at;
use super::tree::Caller;

impl Volume {
    /// Changes what `change` names and returns the attributes after it.
    ///
    /// Size first, then owner (which takes setuid and setgid away), mode and times: what was asked
    /// for stands at the end.
    ///
    /// # Errors
    /// `ReadOnly`, `Stale`; what truncating a file gives; those of the backing filesystem.
    pub fn set_attr(&self, ino: u64, change: &AttrChange, caller: Caller) -> Result<Attr> {
        self.tree.writable()?;
        self.keep_closed(ino, change)?;
        let mut change = *change;
        if let Some(size) = change.size {
            // Also a truncation to the size that the file has is a modification.
            if self.shown_attr(ino, &self.stat(ino)?)?.size == size {
                change.mtime = change.mtime.or(Some(NewTime::Now));
            }
            self.truncate(ino, size, caller)?;
        }
        self.tree.grants.note(change.mode.unwrap_or(0));
        let held = self.hold(ino)?;
        let times = self.times.hold(ino);
        if change.size.is_some() && !caller.keeps_privileges() {
            drop_at(&held)?;
        }
        self.change_inode(ino, &held, &change)?;
        // Not over what follows: showing a size may open the file, which takes it too.
        drop(times);
        if (change.mode.is_some() || change.gid.is_some())
            && let Some(dir) = self.tree.dirs.find(ino)
        {
            dir.forget_rules();
        }
        Ok(self.telling_size(self.shown_attr(ino, &held.stat()?)?))
    }

    fn change_inode(&self, ino: u64, held: &Handle, change: &AttrChange) -> Result<()> {
        if change.uid.is_some() || change.gid.is_some() {
            let _telling = self.tree.owners.write().unwrap_or_else(PoisonError::into_inner);
            held.set_owner(change.uid.map(Uid::from_raw), change.gid.map(Gid::from_raw))?;
            self.tree.inodes.tell(ino, self.tree.told(&Seen::of(held)?));
        }
        if let Some(mode) = change.mode {
            held.set_mode(mode & 0o7777)?;
        }
        if change.atime.is_some() || change.mtime.is_some() {
            held.set_times(&Timestamps {
                last_access: timespec(change.atime),
                last_modification: timespec(change.mtime),
            })?;
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
