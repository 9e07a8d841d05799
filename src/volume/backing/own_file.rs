//! The vault's own small files: descriptors, the record of sessions, lists.
//!
//! Somebody may have put a FIFO, a device, an endless file or a further name of another file in
//! their place: only regular files are read, up to the size that theirs can have, and none is written
//! that has another name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fdatasync,
    fstat, fsync, futimens,
};
use rustix::io::{Errno, pread, pwrite};

use super::beneath::{self, Name};
use crate::volume::model::error::{Result, VolumeError};

const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Reads a file whole; `None` if there is none.
///
/// # Errors
/// `Tampered(what)` if it has more than `limit` bytes, or is no regular file.
pub(in crate::volume) fn read<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    (limit, what): (usize, &'static str),
) -> Result<Option<Vec<u8>>> {
    let file = match beneath::open_file(dir, name, OFlags::RDONLY) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::STALE | Errno::LOOP | Errno::XDEV) => return Err(VolumeError::Tampered(what)),
        Err(error) => return Err(error.into()),
    };
    let length = usize::try_from(fstat(&file)?.st_size).unwrap_or(usize::MAX);
    if length > limit {
        return Err(VolumeError::Tampered(what));
    }
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(&file, rest, done as u64) {
            Ok(0) => break,
            Ok(got) => done += got,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(done);
    Ok(Some(bytes))
}

/// Opens a file to write to it where it lies; `None` if there is none that may be written.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn to_write<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<Option<OwnedFd>, Errno> {
    open_ours(dir, name, OFlags::RDWR)
}

/// Opens a file to read it where it lies; `None` if there is none, or what is there is none of ours.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn to_read<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<Option<OwnedFd>, Errno> {
    open_ours(dir, name, OFlags::RDONLY)
}

/// A regular file with one name.
fn open_ours<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    flags: OFlags,
) -> Result<Option<OwnedFd>, Errno> {
    let held = match beneath::hold(dir, name) {
        Err(Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let found = held.found();
    let ours = FileType::from_raw_mode(found.st_mode).is_file() && found.st_nlink == 1;
    if ours { held.open_file(flags).map(Some) } else { Ok(None) }
}

/// Makes a file, in place of whatever is there.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn fresh<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<OwnedFd, Errno> {
    let (dir, name) = (dir.as_fd(), name.into());
    match beneath::create_file(dir, name, PRIVATE) {
        Err(Errno::EXIST) => {
            remove(dir, name)?;
            beneath::create_file(dir, name, PRIVATE)
        }
        other => other,
    }
}

/// Replaces a file so that a crash leaves the old one or the new one, never a mixture.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn replace<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
    bytes: &[u8],
) -> Result<(), Errno> {
    replace_and(dir.as_fd(), name.into(), bytes, || ())
}

/// The same in a directory of a user's, who has not changed it.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn replace_keeping<'n, A: Fn() -> bool>(
    kept: &KeptTime<'_, A>,
    name: impl Into<Name<'n>>,
    bytes: &[u8],
) -> Result<(), Errno> {
    replace_and(kept.dir, name.into(), bytes, || kept.put_back())
}

/// `changed` follows each change of the names, and comes before the sync of it.
fn replace_and(
    dir: BorrowedFd<'_>,
    name: Name<'_>,
    bytes: &[u8],
    changed: impl Fn(),
) -> Result<(), Errno> {
    let temp = name.with(".new").ok_or(Errno::NAMETOOLONG)?;
    let file = fresh(dir, &temp)?;
    changed();
    let written = write_all(file.as_fd(), bytes)
        .and_then(|()| fdatasync(&file))
        .and_then(|()| put(dir, &temp, name));
    if written.is_err() {
        let _ = beneath::remove(dir, &temp);
    }
    changed();
    written.and_then(|()| fsync(dir))
}

/// The modification time of a directory, as far as it is known.
pub(in crate::volume) fn mtime(dir: BorrowedFd<'_>) -> Option<Timespec> {
    let stat = fstat(dir).ok()?;
    Some(Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().ok()? })
}

/// A directory of a user's in which files of ours change, and nothing of his: it has the modification
/// time from before.
///
/// *Crash*: if somebody's commit falls between a change and [`Self::put_back`], the directory has the time
/// of that.
pub(in crate::volume) struct KeptTime<'d, A> {
    dir: BorrowedFd<'d>,
    before: Option<Timespec>,
    alone: A,
}

impl<'d, A: Fn() -> bool> KeptTime<'d, A> {
    /// Before the first change. `alone` tells whether nobody else has changed names there until now.
    pub(in crate::volume) fn new(dir: BorrowedFd<'d>, alone: A) -> Self {
        let before = mtime(dir).filter(|_| alone());
        Self { dir, before, alone }
    }

    /// The same for changes that began when the directory had this time.
    pub(in crate::volume) fn since(
        dir: BorrowedFd<'d>,
        before: Option<Timespec>,
        alone: A,
    ) -> Self {
        Self { dir, before, alone }
    }

    /// After each change. Only its owner sets the times of a directory: that of somebody else keeps the
    /// time of the change.
    pub(in crate::volume) fn put_back(&self) {
        let Some(before) = self.before.filter(|_| (self.alone)()) else { return };
        self.set(before);
        if !(self.alone)() {
            // What others have changed since is to be seen.
            self.set(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
        }
    }

    fn set(&self, last_modification: Timespec) {
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        if let Err(error) = futimens(self.dir, &Timestamps { last_access, last_modification }) {
            log::debug!("a directory in which files of the vault changed has a new time: {error}");
        }
    }
}

/// Gives the file `from` the name `to`, in place of whatever has it.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn put<'n>(
    dir: impl AsFd,
    from: impl Into<Name<'n>>,
    to: impl Into<Name<'n>>,
) -> Result<(), Errno> {
    let (dir, from, to) = (dir.as_fd(), from.into(), to.into());
    let rename = || beneath::rename((dir, from), (dir, to), RenameFlags::empty());
    match rename() {
        Err(Errno::ISDIR) => set_aside(dir, to).and_then(|()| rename()),
        other => other,
    }
}

/// Removes what has a name of ours.
///
/// # Errors
/// `NOENT`; those of the backing filesystem.
pub(in crate::volume) fn remove<'n>(
    dir: impl AsFd,
    name: impl Into<Name<'n>>,
) -> Result<(), Errno> {
    let (dir, name) = (dir.as_fd(), name.into());
    match beneath::remove(dir, name) {
        Err(Errno::ISDIR | Errno::PERM) => set_aside(dir, name),
        other => other,
    }
}

/// A directory that somebody put in the place of a file of ours keeps what is in it, under another name.
fn set_aside(dir: BorrowedFd<'_>, name: Name<'_>) -> Result<(), Errno> {
    for number in 0..ASIDE {
        let aside = name.with(&format!(".aside{number}")).ok_or(Errno::NAMETOOLONG)?;
        match beneath::rename((dir, name), (dir, &aside), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                log::warn!("a directory was in the place of a file of the vault's own: set aside");
                return Ok(());
            }
        }
    }
    Err(Errno::EXIST)
}

/// Directories that are set aside from one place.
const ASIDE: u32 = 100;

/// Writes bytes from the start of a file.
///
/// # Errors
/// Those of the backing filesystem.
pub(in crate::volume) fn write_all(file: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match pwrite(file, rest, done as u64) {
            Ok(0) => return Err(Errno::NOSPC),
            Ok(wrote) => done += wrote,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_directory_keeps_its_time_unless_others_change_it_as_well() {
        let path = std::env::temp_dir().join(format!("kmsfs-kept-time-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let dir = std::fs::File::open(&path).unwrap();
        let old = Timespec { tv_sec: 7, tv_nsec: 8 };
        // How often it is asked until somebody changes it: at the start, before the time is put back, and
        // after that.
        for (alone, is_kept) in [(0, false), (1, false), (2, false), (3, true)] {
            KeptTime::since(dir.as_fd(), Some(old), || true).put_back();
            let asked = Cell::new(0);
            let kept = KeptTime::new(dir.as_fd(), || asked.replace(asked.get() + 1) < alone);
            std::fs::write(path.join(format!("ours {alone}")), "").unwrap();
            kept.put_back();
            assert_eq!(mtime(dir.as_fd()) == Some(old), is_kept, "{alone}");
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
}
