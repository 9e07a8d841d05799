//! What a request names: the volume, and what is open in it.

use std::sync::Arc;

use fuser::{FileHandle, INodeNo, Request};

use super::{Adapter, BAD_HANDLE, OpenFile, Reply};
use crate::fuse::ATTRIBUTES;
use crate::fuse::request::caller;
use crate::volume::{AccessTime, DirStream, Privileges, Volume};

impl Adapter {
    /// The volume, for a request that somebody waits for.
    pub(super) fn volume(&self) -> &Volume {
        self.note();
        &self.volume
    }

    pub(super) fn note(&self) {
        if let Some(activity) = &self.activity {
            activity.note();
        }
    }

    /// An open file whose user may still use it.
    pub(super) fn file(&self, handle: FileHandle) -> Reply<Arc<OpenFile>> {
        let open = self.known(handle)?;
        open.check()?;
        Ok(open)
    }

    /// An open file.
    pub(super) fn known(&self, handle: FileHandle) -> Reply<Arc<OpenFile>> {
        self.note();
        self.files.find(handle.0).ok_or(BAD_HANDLE)
    }

    /// An open file that is about to be changed by someone who may not keep its setuid bit.
    pub(super) fn stripped(&self, req: &Request, handle: FileHandle) -> Reply<Arc<OpenFile>> {
        let open = self.known(handle)?;
        if self.volume().drop_privileges(&open, caller(req))? == Privileges::Dropped {
            self.forget_attributes(open.ino);
        }
        Ok(open)
    }

    /// Notes that somebody is about to read an open file; true if that moved its access time.
    pub(super) fn accessed(&self, open: &OpenFile) -> bool {
        self.volume.note_access(open).is_ok_and(|time| time == AccessTime::Moved)
    }

    /// Has the kernel forget the attributes of an inode that the present request holds. No pages: this
    /// waits for nothing, so it may be sent from here.
    pub(super) fn forget_attributes(&self, ino: u64) {
        if let Some(notifier) = self.notifier.get() {
            let _ = notifier.inval_inode(INodeNo(ino), ATTRIBUTES, 0);
        }
    }

    /// An open file that is about to be changed.
    pub(super) fn changing(&self, req: &Request, handle: FileHandle) -> Reply<Arc<OpenFile>> {
        let open = self.file(handle)?;
        if caller(req).keeps_privileges() { Ok(open) } else { self.stripped(req, handle) }
    }

    /// An open directory.
    pub(super) fn stream(&self, handle: FileHandle) -> Reply<Arc<DirStream>> {
        self.streams.find(handle.0).ok_or(BAD_HANDLE)
    }
}
