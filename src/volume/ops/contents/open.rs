//! Opening, creating and truncating regular files.

use std::sync::Arc;

use rustix::fs::{Stat, fstat};

use crate::keystore::Action;
use crate::volume::access::authorizer::{Admission, KeyUse, Uses, Writing};
use crate::volume::backing::identity::{InodeStat, fold, short};
use crate::volume::content::{Access, Damaged};
use crate::volume::engine::Volume;
use crate::volume::files::file::{File, FileHandle};
use crate::volume::files::file_key::{Prepared, policy_of};
use crate::volume::model::attr::Attr;
use crate::volume::model::caller::Caller;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::namespace::names::EntryName;
use crate::volume::ops::names::create::NewNode;
use crate::volume::ops::reach::lookup::Entered;

/// What a user opens a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFor {
    /// Reads.
    Reading,
    /// Writes: nothing comes back through the handle.
    Writing,
    /// Reads and writes.
    Both,
}

impl OpenFor {
    const fn access(self) -> Access {
        match self {
            Self::Reading => Access::ReadOnly,
            Self::Writing | Self::Both => Access::ReadWrite,
        }
    }

    const fn reads(self) -> bool {
        matches!(self, Self::Reading | Self::Both)
    }
}

/// A handle, and whether the kernel's cached pages of the file are still right.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub handle: FileHandle,
    /// True if the kernel may keep what it has cached.
    pub keep_cache: bool,
    /// The file is damaged: its size is not what the kernel takes it for, so reads must come here to
    /// be refused.
    pub damaged: bool,
    /// The file has another size than its backing length told: what the kernel knows of it may be
    /// wrong.
    pub resized: bool,
}

impl Volume {
    /// Opens a regular file for a user of the mount.
    ///
    /// A damaged file opens for writing, and can then be cut to nothing and nothing else.
    ///
    /// # Errors
    /// `Denied`; as [`Volume::open_handle`].
    pub fn open_as(&self, ino: u64, wanted: OpenFor, caller: Caller) -> Result<Opened> {
        // For O_TRUNC the kernel sends a request of its own later, and does not say so now: so whoever
        // may write can open a damaged file, in order to cut it.
        let damaged = match wanted.access() {
            Access::ReadOnly => Damaged::Refused,
            Access::ReadWrite => Damaged::Opened,
        };
        let mut opened = self.open_for(ino, wanted.access(), damaged)?;
        match self.admit(ino, &opened.handle.file, wanted, caller) {
            Ok(admission) => opened.handle.admission = admission,
            Err(error) => {
                self.close(opened.handle);
                return Err(error);
            }
        }
        Ok(opened)
    }

    /// Opens a regular file for the owner of the volume, whom no policy binds.
    ///
    /// # Errors
    /// `KeyUnusable`, `ForeignKey`, `Tampered`, `Lost`; `ReadOnly` for writing, and `Io(PERM)` if the
    /// file is immutable; `Stale`, also where the kernel knows another size.
    pub fn open_handle(&self, ino: u64, access: Access) -> Result<Opened> {
        self.open_for(ino, access, Damaged::Refused)
    }

    fn open_for(&self, ino: u64, access: Access, damaged: Damaged) -> Result<Opened> {
        if access == Access::ReadWrite {
            self.tree.writable()?;
        }
        let mut found = None;
        let told = |stat: &Stat| (self.fingerprint(stat), Attr::from_stat(ino, stat).size);
        let file = self.open_file(ino, damaged, |stat| found = Some(told(stat)))?;
        let mutable = if access == Access::ReadWrite { file.must_be_mutable() } else { Ok(()) };
        if let Err(error) = mutable.and_then(|()| self.check_known_size(ino, &file)) {
            drop(file);
            self.files.release(ino);
            return Err(error);
        }
        // If nothing was opened, the file is open already, and what is cached of it is watched.
        let keep_cache = found.is_none_or(|(found, _)| self.tree.inodes.has_cached(ino, found));
        let resized = found.is_some_and(|(_, size)| size != file.size());
        let damaged = damaged == Damaged::Opened && file.content().is_damaged();
        Ok(Opened { handle: FileHandle::new(ino, file), keep_cache, damaged, resized })
    }

    /// Gives a handle back. Contents that the kernel has cached stay good if nothing changes them.
    pub fn close(&self, handle: impl Into<Arc<FileHandle>>) {
        let handle = handle.into();
        let ino = handle.ino;
        let stat = fstat(handle.file.backing_fd());
        self.note_size(&handle.file);
        if let Ok(stat) = &stat {
            self.tree.inodes.note_cached(ino, self.fingerprint(stat));
        }
        // Before it is closed: it is listed as open or as cached at any time.
        self.tree.inodes.note_pages(ino, handle.file.key());
        drop(handle);
        self.files.release_found(ino, stat.as_ref().ok());
        if stat.is_ok_and(|stat| stat.st_nlink == 0) {
            self.files.removed(ino);
        }
    }

    /// Makes a regular file and opens it. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `Io(EXIST)` if the name is taken; `Denied`; as [`Volume::mkdir`] and
    /// [`Volume::open_handle`].
    pub fn create_file(
        &self,
        parent: u64,
        name: &[u8],
        new: &NewNode,
        wanted: OpenFor,
    ) -> Result<(Attr, FileHandle)> {
        self.tree.writable()?;
        let dir = self.dir(parent)?;
        let name = EntryName::new(&dir, name)?;
        let uses = Uses { makes: true, reads: wanted.reads() };
        self.authorizer.allow_new(new.caller, uses, dir.descriptor()?.policy)?;
        let policy = policy_of(&dir)?;
        // A silent KMS makes the open fail, before there is a file, and not the first write.
        let prepared = match wanted.access() {
            Access::ReadWrite => Prepared::make(&self.keyring, policy.create)?,
            Access::ReadOnly => None,
        };
        let fd = self.make_file(&dir, &name, new)?;
        let seen = match self.tree.options.export {
            true => InodeStat::with_generation(&fd)?,
            false => InodeStat::of(&fd)?,
        };
        let ino = self.tree.inodes.shown(seen.stat.st_ino);
        let before = self.tell(&seen, parent, &name.entry);
        let adopted = self.files.adopt(ino, fd, &policy);
        let made = adopted.and_then(|file| {
            file.source().set_prepared(prepared);
            // Whoever tells open files of a new policy did not see this one until now.
            self.hear_of_name(ino);
            self.open_made(FileHandle::new(ino, file), &seen, uses, new.caller)
        });
        if made.is_err() {
            self.take_back(ino, before);
        }
        made
    }

    fn open_made(
        &self,
        handle: FileHandle,
        seen: &InodeStat,
        uses: Uses,
        caller: Caller,
    ) -> Result<(Attr, FileHandle)> {
        let subject = (handle.ino, handle.file.subject_cell().clone());
        let admitted = self.authorizer.admit(subject, uses, caller).and_then(|admission| {
            let since = self.tree.inodes.resized(handle.ino);
            let attr = self.telling_size(self.shown_attr(handle.ino, &seen.stat)?, since);
            Ok((admission, Attr { generation: self.generation(seen), ..attr }))
        });
        match admitted {
            Ok((admission, attr)) => Ok((attr, FileHandle { admission, ..handle })),
            Err(error) => {
                self.close(handle);
                Err(error)
            }
        }
    }

    /// Finds a regular file and opens it. The kernel then holds a lookup.
    ///
    /// # Errors
    /// `NotFound`; as [`Volume::open_as`].
    pub fn open_existing(
        &self,
        parent: u64,
        name: &[u8],
        wanted: OpenFor,
        caller: Caller,
    ) -> Result<(Attr, FileHandle)> {
        let Entered { attr, before } = self.look_up(parent, name)?.ok_or(VolumeError::NotFound)?;
        match self.open_as(attr.ino, wanted, caller) {
            Ok(opened) => Ok((attr, opened.handle)),
            Err(error) => {
                self.take_back(attr.ino, before);
                Err(error)
            }
        }
    }

    /// Sets the plaintext size of a file by its inode.
    ///
    /// A file whose header is lost can still be cut to nothing.
    ///
    /// # Errors
    /// `Denied`; as [`Volume::open_handle`]; `Io(NOSPC)`, `TooLarge`.
    pub(in crate::volume) fn truncate(&self, ino: u64, size: u64, caller: Caller) -> Result<()> {
        match self.open_briefly(ino) {
            Ok(opened) => {
                self.allow_truncate(opened.file(), size, caller)?;
                let _writing = self.writing(opened.file(), caller);
                self.cut(opened.file(), size)
            }
            Err(VolumeError::Tampered(_) | VolumeError::Lost(_)) if size == 0 => {
                let about = KeyUse::new_file(self.file_policy(ino)?.create);
                self.authorizer.allow(caller, Action::GenerateDataKey, about)?;
                self.files.erase(ino, |flags| Ok(self.reopen(ino, flags)?.0))?;
                self.note_erased(ino);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A file that is cut to nothing forgets its key (R14): what is written next takes a new one.
    fn allow_truncate(&self, file: &File, size: u64, caller: Caller) -> Result<()> {
        self.allow_use(file, Access::ReadWrite, caller)?;
        if size > 0 || file.keeps_its_key() {
            return Ok(());
        }
        self.authorizer.allow(
            caller,
            Action::GenerateDataKey,
            KeyUse::new_file(file.first_key()),
        )?;
        // The contents are not given up while a KMS elsewhere has no key for those that follow.
        file.source().prepare()
    }

    /// Asks whether a user may use an open file without a handle of their own.
    ///
    /// # Errors
    /// `Denied`.
    pub(in crate::volume) fn allow_use(
        &self,
        file: &File,
        access: Access,
        caller: Caller,
    ) -> Result<()> {
        match file.subject() {
            Some(subject) => self.authorizer.allow(caller, Action::Decrypt, subject.into()),
            None if access == Access::ReadWrite => {
                let about = KeyUse::new_file(file.first_key());
                self.authorizer.allow(caller, Action::GenerateDataKey, about)
            }
            None => Ok(()),
        }
    }

    /// As [`FileHandle::writing`], for a request without a handle.
    pub(in crate::volume) fn writing(&self, file: &File, caller: Caller) -> Option<Writing> {
        self.authorizer.writing((file.ino(), file.subject_cell().clone()), caller)
    }

    fn admit(
        &self,
        ino: u64,
        file: &File,
        wanted: OpenFor,
        caller: Caller,
    ) -> Result<Option<Arc<Admission>>> {
        // A file without contents has no key yet: who may write it makes one.
        let empty = file.subject().is_none();
        let makes = wanted.access() == Access::ReadWrite && empty;
        let uses = Uses { makes, reads: wanted.reads() };
        // Asked now, since a write must not fail later, and since the kernel's cache will show the
        // first contents to every reader who has the file open.
        if empty {
            self.authorizer.allow_new(caller, uses, file.first_key())?;
        }
        if makes {
            file.source().prepare()?;
        }
        self.authorizer.admit((ino, file.subject_cell().clone()), uses, caller)
    }

    /// Opens `ino` and tells `found` the state of its backing file, if that had to be opened.
    fn open_file(
        &self,
        ino: u64,
        damaged: Damaged,
        mut found: impl FnMut(&Stat),
    ) -> Result<Arc<File>> {
        let policy = self.file_policy(ino)?;
        let file = self.files.open_or_refuse(ino, (&policy, damaged), |flags| {
            let (fd, stat) = self.reopen(ino, flags)?;
            found(&stat);
            Ok(fd)
        })?;
        match self.hear_of_policies(&file) {
            Ok(()) => Ok(file),
            Err(error) => {
                drop(file);
                self.files.release(ino);
                Err(error)
            }
        }
    }

    /// Tells two states of a file apart without reading it. Only this process can make use of it.
    fn fingerprint(&self, stat: &Stat) -> u16 {
        let state = (stat.st_size, stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime);
        fold(short(&self.tree.hasher, (state, stat.st_ctime_nsec)))
    }
}
