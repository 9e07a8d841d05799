//! Opening and closing: what the disk tells of a file, what is remembered of it, and its keys.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{RwLock, RwLockReadGuard};

use super::{Access, Content, Damaged, KeySource, Marks, Mutability, Shared, State};
use crate::envelope::XattrKeys;
use crate::volume::backing::contents::Backing;
use crate::volume::model::error::{Result, VolumeError};
use crate::volume::model::errseq::WriteErrors;

impl Content {
    /// The contents that `backing` holds. Reads and authenticates the header, if there is one.
    ///
    /// `marks` are those that [`Self::into_marks`] gave when the inode was last closed.
    ///
    /// # Errors
    /// `KeyUnusable`, `ForeignKey`, `Tampered` (header, or cut below its seal), `Lost`.
    pub(in crate::volume) fn open(
        backing: Arc<dyn Backing>,
        keys: Arc<dyn KeySource>,
        shared: Arc<Shared>,
        (access, mutability): (Access, Mutability),
        (marks, damaged): (Option<Marks>, Damaged),
    ) -> Result<Self> {
        let errors = WriteErrors::resumed(marks.as_ref().and_then(Marks::unreported));
        let failures = shared.failed_syncs();
        let state = State::new(backing.length()?, &shared.cache, marks, failures);
        let content = Self {
            backing,
            keys,
            shared,
            access,
            frozen: AtomicBool::new(mutability == Mutability::Frozen),
            errors,
            gate: RwLock::new(()),
            state: RwLock::new(state),
        };
        {
            let mut state = content.write_state();
            match (content.look(&mut state), damaged) {
                (Err(VolumeError::Lost(_) | VolumeError::Tampered(_)), Damaged::Opened) => {
                    state.cut_short = state.ready.take().is_some();
                }
                (looked, _) => looked?,
            }
        }
        Ok(content)
    }

    /// Loads the header, and checks that the file is whole.
    fn look(&self, state: &mut State) -> Result<()> {
        match self.load(state) {
            // It never got its first page, and could not be cut to nothing when that failed.
            Err(VolumeError::Lost(_)) if state.marks.owed_length == Some(0) => {}
            other => other?,
        }
        if state.is_another_file() {
            let failures = self.shared.failed_syncs();
            *state = State::new(self.backing.length()?, &self.shared.cache, None, failures);
            self.errors.forget();
            self.load(state)?;
        }
        state.believe_owed_length();
        if !state.has_header {
            self.keys.forget();
        }
        if let Err(error) = self.write_owed_length(state) {
            log::warn!("the length of a file could not be put right: {error}");
        }
        self.check_size(state)?;
        if let Err(error) = self.put_torn_back(state) {
            log::error!("a page that was torn could not be put back: {error}");
        }
        Ok(())
    }

    /// Contents of a volume without a history, over any backing: what tests and benches open.
    ///
    /// # Errors
    /// As `open`.
    pub fn over(
        backing: Arc<dyn Backing>,
        keys: Arc<dyn KeySource>,
        shared: Arc<Shared>,
        access: Access,
    ) -> Result<Self> {
        let access = (access, Mutability::Mutable);
        Self::open(backing, keys, shared, access, (None, Damaged::Refused))
    }

    /// Acts like the last close and the next open of the inode: what is not durable stays known.
    ///
    /// # Errors
    /// As `open`; nothing is lost then, and it can be tried again.
    pub fn reopen(&self) -> Result<Self> {
        let (backing, keys) = (self.backing.clone(), self.keys.clone());
        let (shared, access) = (self.shared.clone(), (self.access, Mutability::Mutable));
        Self::open(backing, keys, shared, access, (self.kept_marks(), Damaged::Refused))
    }

    /// True if nothing can be done with the file but to cut it to nothing.
    pub(in crate::volume) fn is_damaged(&self) -> bool {
        if self.read_state().ready.is_some() {
            return false;
        }
        let looked = self.load(&mut self.write_state());
        matches!(looked, Err(VolumeError::Lost(_) | VolumeError::Tampered(_)))
    }

    /// Forgets every key and every decrypted byte. The next use asks for the key again.
    pub fn wipe(&self) {
        let mut state = self.write_state();
        self.leave_nothing_owed(&mut state);
        state.note_file();
        state.ready = None;
        state.spills.drop_pages();
    }

    /// The keys of the file's extended attributes; gives an empty file its header.
    ///
    /// # Errors
    /// As a write.
    pub fn xattr_keys(&self, change: Access) -> Result<Option<XattrKeys>> {
        {
            let state = self.ready_state()?;
            match &state.ready {
                Some(ready) if change == Access::ReadOnly || ready.header.flags.xattrs => {
                    return Ok(Some(ready.keys.xattr_keys()));
                }
                None if change == Access::ReadOnly => return Ok(None),
                _ => {}
            }
        }
        let mut state = self.change();
        self.ensure_header(&mut state)?;
        self.update_header(&mut state, |header| header.flags.xattrs = true)?;
        // An attribute is no change of the contents.
        let mut written = Ok(());
        self.backing.keep_times(&mut || {
            written = self.write_fresh_header(&mut state);
            Ok(())
        })?;
        written?;
        Ok(state.ready.as_ref().map(|ready| ready.keys.xattr_keys()))
    }

    /// Writes out what the disk should have and drops contents, as for a close. True if nothing about the
    /// file is in doubt, so that it can stay open, with its keys.
    pub(in crate::volume) fn rest(&self) -> bool {
        let mut state = self.write_state();
        self.leave_nothing_owed(&mut state);
        state.note_file();
        state.spills.drop_pages();
        let whole = state.ready.is_some() && !state.cut_short && !state.stretched;
        whole && !state.marks.is_unsure() && state.marks.owed_size().is_none()
    }

    /// What must be remembered when the inode is closed before it was synced.
    pub(in crate::volume) fn into_marks(self) -> Option<Marks> {
        self.kept_marks()
    }

    /// Writes out what the disk should have, and returns what the disk does not tell.
    fn kept_marks(&self) -> Option<Marks> {
        let mut state = self.write_state();
        self.leave_nothing_owed(&mut state);
        state.note_file();
        let size = state.size;
        state.marks.park(size, self.errors.unreported());
        state.spills.drop_pages();
        if state.marks.is_forgettable() {
            return None;
        }
        let mut marks = state.marks.clone();
        marks.groups = state.spills.known();
        Some(marks)
    }

    /// A shared view of a state whose keys are loaded (or that has no header).
    pub(super) fn ready_state(&self) -> Result<RwLockReadGuard<'_, State>> {
        loop {
            let state = self.read_state();
            if state.ready.is_some() || !state.has_header {
                return Ok(state);
            }
            drop(state);
            self.load(&mut self.write_state())?;
        }
    }
}
