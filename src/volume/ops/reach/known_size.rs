//! The size that the kernel knows of a file.
//!
//! The kernel appends behind the end that it knows of, and makes a file longer or shorter than that.
//! Whoever writes to the vault can put another state of a file in place meanwhile: behind a shorter one
//! the gap would be filled with zeros that nobody wrote, and sealed, and in a longer one the new bytes
//! would come over others. So a file whose size the kernel does not know is not opened: the kernel gets
//! ESTALE, looks the name up again, and goes by the size that it then finds.
//!
//! That size is remembered with the inode, and compared with the file when it is opened. From then
//! on the file changes by the kernel's own requests alone, until its last close.
//!
//! Several programs change and look at a file at once, and none of that is somebody else's doing. What
//! the kernel's requests have made is noted while the file is still open ([`Volume::note_size`]), and an
//! answer that was looked up before that does not count: the kernel passes it over as well.

use rustix::fs::fstat;

use crate::volume::backing::identity::{fold, short};
use crate::volume::engine::Volume;
use crate::volume::files::file::File;
use crate::volume::model::attr::{Attr, FileKind};
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::inode::Resized;

impl Volume {
    /// Refuses a file whose size is not the one that the kernel knows.
    ///
    /// # Errors
    /// `Stale`, where another look tells the size.
    pub(in crate::volume) fn check_known_size(&self, ino: u64, file: &File) -> Result<()> {
        // Where nothing can be written, nothing can be written in the wrong place.
        if file.is_size_known() || self.tree.options.read_only {
            return Ok(());
        }
        let size = file.size();
        let other = self.tree.inodes.size(ino).is_some_and(|known| known != self.mark_of(size));
        // A second look: another handle that was opened meanwhile may have made it that long.
        if other && Self::looks_as_long(file, size) && !file.is_size_known() {
            log::error!("inode {ino}: somebody changed its size in the vault");
            return Err(VolumeError::Stale);
        }
        file.set_size_known();
        Ok(())
    }

    /// False if the backing length does not tell the size, because it could not be set.
    fn looks_as_long(file: &File, size: u64) -> bool {
        fstat(file.backing_fd()).is_ok_and(|stat| Attr::from_stat(file.ino(), &stat).size == size)
    }

    /// The kernel is told these attributes, which were looked up after `since`.
    pub(in crate::volume) fn telling_size(&self, attr: Attr, since: Resized) -> Attr {
        if attr.kind == FileKind::Regular {
            let size = self.files.find_in_use(attr.ino).map_or(attr.size, |file| {
                file.set_size_known();
                file.size()
            });
            self.tree.inodes.tell_size(attr.ino, self.mark_of(size), since);
        }
        attr
    }

    /// Notes that the kernel knows the size of an open file, since its own requests made it. Called
    /// before the file is closed: whoever opens it next reads the size from the disk.
    pub(in crate::volume) fn note_size(&self, file: &File) {
        file.set_size_known();
        let mut size = file.size();
        loop {
            self.tree.inodes.note_size(file.ino(), self.mark_of(size));
            // Another handle changed it, and was closed before this was noted.
            let now = file.size();
            if now == size {
                return;
            }
            size = now;
        }
    }

    /// Cuts an open file at the kernel's request.
    ///
    /// # Errors
    /// `Stale` where the kernel knows another size, unless nothing is left of the file; those of the
    /// cut.
    pub(in crate::volume) fn cut(&self, file: &File, size: u64) -> Result<()> {
        if size > 0 {
            self.check_known_size(file.ino(), file)?;
        }
        // Whoever opens it meanwhile finds the size that the kernel hears of in a moment.
        let was_known = file.is_size_known();
        file.set_size_known();
        match file.truncate(size) {
            Ok(()) => {
                self.note_size(file);
                Ok(())
            }
            Err(error) => {
                if !was_known {
                    file.set_size_unknown();
                }
                Err(error)
            }
        }
    }

    /// A file that could not even be opened is empty now, at the kernel's request.
    pub(in crate::volume) fn note_erased(&self, ino: u64) {
        self.tree.inodes.note_size(ino, self.mark_of(0));
    }

    /// Tells two sizes apart, but for one pair in 65,535: a known inode has room for no more. Only this
    /// process can make use of it, so nobody can look for a size with the mark of another.
    fn mark_of(&self, size: u64) -> u16 {
        fold(short(&self.tree.hasher, size))
    }
}
