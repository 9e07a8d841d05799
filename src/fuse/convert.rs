//! Between the volume's types and fuser's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::volume::attr::{Attr, FileKind, NewTime, Timestamp};

/// What `st_blksize` says: one plaintext page.
const BLOCK_SIZE: u32 = 4096;

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Attributes that say "no such inode": a reply with them makes a negative entry.
pub(super) fn no_attr() -> FileAttr {
    let zero = Timestamp::default();
    file_attr(&Attr {
        ino: 0,
        generation: 0,
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        kind: FileKind::Regular,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
    })
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(time: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    if time.secs >= 0 { UNIX_EPOCH + seconds + nanos } else { UNIX_EPOCH - seconds + nanos }
}

pub(super) fn new_time(time: TimeOrNow) -> NewTime {
    match time {
        TimeOrNow::Now => NewTime::Now,
        TimeOrNow::SpecificTime(time) => NewTime::At(requested_time(time)),
    }
}

/// The time that the kernel asked for, from what fuser made of it.
///
/// fuser 0.18 reads the kernel's pair of seconds and nanoseconds before 1970 as `-(|s| + n)`
/// instead of `s + n`. Nothing is lost by that, so it is undone here, exactly.
fn requested_time(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp {
            secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            nanos: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let secs = i64::try_from(before.as_secs()).map_or(i64::MIN, |secs| -secs);
            Timestamp { secs, nanos: before.subsec_nanos() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fuser 0.18 does to the kernel's pair (`system_time_from_time`).
    fn through_fuser(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs.unsigned_abs(), nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    #[test]
    fn times_before_1970_arrive_as_the_kernel_sent_them() {
        let extreme = [(i64::MAX, 0), (i64::MIN, 0), (i64::MIN + 1, 999_999_999)];
        let usual = [(0, 0), (0, 1), (7, 999_999_999), (-1, 0), (-1, 1), (-2, 500_000_000)];
        for (secs, nanos) in usual.into_iter().chain(extreme) {
            let asked = requested_time(through_fuser(secs, nanos));
            assert_eq!(asked, Timestamp { secs, nanos }, "{secs} {nanos}");
        }
    }

    #[test]
    fn times_before_1970_are_shown_with_their_fraction() {
        let shown = system_time(Timestamp { secs: -2, nanos: 500_000_000 });
        assert_eq!(shown, UNIX_EPOCH - Duration::from_millis(1500));
    }
}
