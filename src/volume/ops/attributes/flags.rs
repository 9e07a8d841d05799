//! Flags of inodes: those of the backing inodes, as far as they mean the same there.
//!
//! Immutability is the backing filesystem's to enforce, on names and attributes as on contents, and
//! what this daemon does by itself copes with what is refused (`content/durable/freeze.rs`, the
//! re-wrap's report, recovery). *Append only* cannot be kept: a page is written again when bytes are
//! added to it.

use std::os::fd::AsFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::volume::backing::contents::Durability;
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::flags::InodeFlags;

impl Volume {
    /// The flags of a file or directory that somebody has open.
    ///
    /// # Errors
    /// `Io(OPNOTSUPP)` if the backing filesystem has none; `Stale`.
    pub fn inode_flags(&self, ino: u64) -> Result<InodeFlags> {
        self.flags_of(ino).map(shown)
    }

    /// Sets them. May wait until the kernel has written dirty pages back: not from within a request.
    ///
    /// *Order*: a file that becomes immutable is settled first, and refuses every write from then on;
    /// one that was can be written once the backing file can.
    ///
    /// # Errors
    /// As [`Self::inode_flags`]; `ReadOnly`; `Io(BUSY)` if others go on writing to a file that is to
    /// become immutable, or if it waits for recovery; those of the backing filesystem, `Io(PERM)` among
    /// them.
    pub fn set_inode_flags(&self, ino: u64, flags: InodeFlags) -> Result<()> {
        self.tree.writable()?;
        let old = self.flags_of(ino)?;
        let new = (old - KEPT) | stored(flags);
        if new == old {
            return Ok(());
        }
        let file = self.files.find(ino);
        let [was, becomes] = [old, new].map(|flags| flags.contains(IFlags::IMMUTABLE));
        if becomes && !was {
            self.settle(ino, file.as_deref())?;
        }
        let set = match &file {
            Some(file) => ioctl_setflags(file.backing_fd(), new),
            None => ioctl_setflags(&*self.dir(ino)?, new),
        };
        let is_now = if set.is_ok() { becomes } else { was };
        if (was || becomes) && !is_now {
            self.files.thaw(ino, |flags| self.reopen(ino, flags).map(|(fd, _)| fd))?;
        }
        if let Some(kernel) = self.kernel() {
            kernel.invalidate_attributes(ino);
        }
        Ok(set?)
    }

    /// Before an inode becomes immutable: nothing is left to be written to it.
    fn settle(&self, ino: u64, file: Option<&File>) -> Result<()> {
        let Some(file) = file else { return self.sync_dir(ino, Durability::Everything) };
        // Stores into mappings that came before.
        self.invalidate([ino]);
        match file.content().freeze()? {
            true => Ok(()),
            false => Err(Errno::BUSY.into()),
        }
    }

    fn flags_of(&self, ino: u64) -> Result<IFlags> {
        let flags = match self.files.find(ino) {
            Some(file) => ioctl_getflags(file.backing_fd()),
            None => ioctl_getflags(self.dir(ino)?.as_fd()),
        };
        flags.map_err(|error| match error {
            Errno::NOTTY | Errno::INVAL => VolumeError::Io(Errno::OPNOTSUPP),
            error => error.into(),
        })
    }
}

/// The flags that mean for a file of the mount what they mean for its backing file.
const KEPT: IFlags = IFlags::IMMUTABLE.union(IFlags::NODUMP).union(IFlags::NOATIME);

fn shown(flags: IFlags) -> InodeFlags {
    InodeFlags {
        immutable: flags.contains(IFlags::IMMUTABLE),
        no_dump: flags.contains(IFlags::NODUMP),
        no_atime: flags.contains(IFlags::NOATIME),
    }
}

fn stored(flags: InodeFlags) -> IFlags {
    let all = [
        (flags.immutable, IFlags::IMMUTABLE),
        (flags.no_dump, IFlags::NODUMP),
        (flags.no_atime, IFlags::NOATIME),
    ];
    all.into_iter().filter(|(on, _)| *on).fold(IFlags::empty(), |set, (_, flag)| set | flag)
}
