//! The size by which the kernel goes.
//!
//! It appends behind the end that it knows of, and makes a file longer or shorter than that. Whoever
//! writes to the vault can put another state of a file in place meanwhile: behind a shorter one the gap
//! would be filled with zeros that nobody wrote, and sealed, and in a longer one the new bytes would
//! come over others. So a file whose size the kernel does not know is not opened: it is answered
//! ESTALE, upon which it looks the name up again and goes by the size that there is.
//!
//! What was told is remembered with the inode, and held against the file when it is opened. From then
//! on the file changes by the kernel's own requests alone, until its last close.

use rustix::fs::fstat;

use super::Volume;
use super::attr::{Attr, FileKind};
use super::error::{Result, VolumeError};
use super::identity::{fold, short};
use super::open_file::File;

impl Volume {
    /// Refuses a file of which the kernel knows another size than it has.
    ///
    /// # Errors
    /// `Stale`, where another look tells the size.
    pub(super) fn must_be_told(&self, ino: u64, file: &File) -> Result<()> {
        // Where nothing can be written, nothing can be written in the wrong place.
        if file.size_is_told() || self.tree.options.read_only {
            return Ok(());
        }
        let size = file.size();
        let other = self.tree.inodes.size(ino).is_some_and(|told| told != self.mark_of(size));
        if other && Self::looks_as_long(file, size) {
            log::error!("inode {ino}: somebody changed its size in the vault");
            return Err(VolumeError::Stale);
        }
        file.set_size_told();
        Ok(())
    }

    /// False where the length of the backing file could not be made to tell the size.
    fn looks_as_long(file: &File, size: u64) -> bool {
        fstat(file.backing_fd()).is_ok_and(|stat| Attr::from_stat(file.ino(), &stat).size == size)
    }

    /// The kernel is told these attributes.
    pub(super) fn telling_size(&self, attr: Attr) -> Attr {
        if attr.kind == FileKind::Regular {
            match self.files.find(attr.ino) {
                Some(file) => self.note_size(&file),
                None => self.tree.inodes.set_size(attr.ino, self.mark_of(attr.size)),
            }
        }
        attr
    }

    /// The kernel knows how long an open file is: it is told, or its own requests made it so.
    pub(super) fn note_size(&self, file: &File) {
        file.set_size_told();
        let mut size = file.size();
        loop {
            self.tree.inodes.set_size(file.ino(), self.mark_of(size));
            // By another handle, which was closed before this was noted.
            let now = file.size();
            if now == size {
                return;
            }
            size = now;
        }
    }

    /// Tells two sizes apart, but for one pair in 65,535: a known inode has room for no more. Only this
    /// process can make use of it, so nobody can look for a size with the mark of another.
    fn mark_of(&self, size: u64) -> u16 {
        fold(short(&self.tree.hasher, size))
    }
}
