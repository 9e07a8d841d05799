//! What an earlier run never finished, and left behind under a temporary name.

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::volume::backing::beneath::{self, BackingName, Name};
use crate::volume::backing::listing::raw_names;
use crate::volume::backing::own_file::KeptTime;
use crate::volume::engine::Volume;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::descriptor;
use crate::volume::namespace::dir::Dir;

impl Volume {
    /// Removes something unfinished that an earlier run left behind.
    pub(in crate::volume) fn remove_leftover(&self, dir: &Dir, entry: &BackingName) {
        let _changing = self.tree.locks.changing(&[dir.ino()]);
        let kept = KeptTime::new(dir.as_fd(), || true);
        let removed = match beneath::remove(dir, entry) {
            Err(Errno::ISDIR) => remove_unfinished_dir(dir, entry),
            other => other.map_err(VolumeError::from),
        };
        kept.put_back();
        if let Err(error) = removed {
            log::warn!("something unfinished could not be removed: {error}");
        }
    }
}

/// True if something but a descriptor is in a directory.
pub(in crate::volume) fn holds_more(dir: impl AsFd) -> Result<bool> {
    Ok(raw_names(dir)?.iter().any(|name| Name::from(name) != descriptor::FILE))
}

/// Removes a directory that never got its name, and so holds a descriptor at most. One that holds more
/// belongs to somebody, whoever gave it such a name, and stays as it is.
pub(in crate::volume) fn remove_unfinished_dir(dir: impl AsFd, entry: &BackingName) -> Result<()> {
    let dir = dir.as_fd();
    let unfinished = beneath::open_dir(dir, entry)?;
    if holds_more(&unfinished)? {
        return Err(VolumeError::NotEmpty);
    }
    match beneath::remove(unfinished, descriptor::FILE) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(beneath::remove_dir(dir, entry)?)
}
