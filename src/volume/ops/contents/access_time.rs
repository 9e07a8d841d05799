//! Notes that somebody reads a file.
//!
//! No descriptor of a backing file moves its access time by itself, where the vault's owner may ask for
//! that: what is read through it need not be what a user reads, who may have asked for no trace
//! (`O_NOATIME`), and most of what users read comes from the kernel's cache. So an open for reading counts
//! as the access.

use rustix::fs::{
    IFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat, futimens, ioctl_getflags,
};

use crate::volume::backing::accesses;
use crate::volume::engine::Volume;
use crate::volume::files::file::FileHandle;
use crate::volume::model::attr::Attr;
use crate::volume::model::clock;
use crate::volume::model::error::Result;
use crate::volume::model::options::AccessTimes;
use crate::volume::session::times::Times;

/// What became of a file's access time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessTime {
    /// It is what it was.
    Unchanged,
    /// It moved: the kernel does not know yet.
    Moved,
}

impl Volume {
    /// Notes that somebody is about to read an open file, if that counts.
    ///
    /// # Errors
    /// Those of the backing filesystem. The file can be read all the same.
    pub fn note_access(&self, handle: &FileHandle) -> Result<AccessTime> {
        let fd = handle.file.backing_fd();
        match self.tree.options.access_times {
            _ if self.tree.options.read_only => return Ok(AccessTime::Unchanged),
            AccessTimes::Never => return Ok(AccessTime::Unchanged),
            // The backing filesystem looks at this flag by itself, but for times that are set.
            AccessTimes::Strict
                if ioctl_getflags(fd).is_ok_and(|f| f.contains(IFlags::NOATIME)) =>
            {
                return Ok(AccessTime::Unchanged);
            }
            AccessTimes::Strict => {
                let times = Timestamps { last_access: NOW, last_modification: AS_IT_IS };
                handle.file.backing().keep(|| futimens(fd, &times))?;
                return Ok(AccessTime::Moved);
            }
            AccessTimes::Relative => {}
        }
        let before = fstat(fd)?;
        let shown = self.times.shown(handle.ino, Times::of(&before));
        if !is_due(accessed(&before), shown, clock::now_nanos()) {
            return Ok(AccessTime::Unchanged);
        }
        accesses::note(fd)?;
        let moved = accessed(&fstat(fd)?) != accessed(&before);
        Ok(if moved { AccessTime::Moved } else { AccessTime::Unchanged })
    }
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
const AS_IT_IS: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
const DAY: i64 = 24 * 60 * 60 * 1_000_000_000;

/// The rule of `relatime` (mount(8)). Units: nanoseconds since 1970. By the times that are shown: what
/// kmsfs itself does to a backing file is no change after which the next access counts.
fn is_due(accessed: i64, shown: Times, now: i64) -> bool {
    accessed <= shown.mtime || accessed <= shown.ctime || now.saturating_sub(accessed) >= DAY
}

fn accessed(stat: &Stat) -> i64 {
    Attr::from_stat(0, stat).atime.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_counts_after_a_change_and_once_a_day() {
        let shown = Times { ctime: 20, mtime: 10 };
        let due = |accessed, now| is_due(accessed, shown, now);
        assert!(due(10, 30) && due(20, 30));
        assert!(!due(21, 30) && !due(21, 20 + DAY));
        assert!(due(21, 21 + DAY));
        assert!(due(15, 30), "the attributes changed since");
        assert!(is_due(15, Times { ctime: 10, mtime: 20 }, 30), "the contents are to change");
        assert!(!due(i64::MAX, i64::MIN));
    }
}
