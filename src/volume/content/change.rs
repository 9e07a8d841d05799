//! How a change of a file begins: with its locks, a header, and the announcement that it comes (FORMAT
//! section 12.3). And what it must not leave in memory.

use std::ops::{Deref, DerefMut};

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};
use rustix::io::Errno;

use super::{Access, Content, Ready, State};
use crate::envelope::layout::pages_of;
use crate::envelope::{FileHeader, FileKeys, HeaderFlags, Seal};
use crate::volume::model::error::{Result, VolumeError};

/// The state of a file while it is changed. A header is made only through this; when it ends, that
/// header is on the disk or gone.
pub(super) struct Change<'a> {
    content: &'a Content,
    state: RwLockWriteGuard<'a, State>,
    // After `state`: the order of the locks.
    _gate: RwLockReadGuard<'a, ()>,
}

impl Content {
    /// Begins a change. *Locks*: `gate` shared, `state` exclusively, until it is dropped.
    pub(super) fn change(&self) -> Change<'_> {
        self.make_journal_room();
        let gate = self.enter();
        let mut change = Change { content: self, state: self.write_state(), _gate: gate };
        self.sync_cut_pages(&mut change);
        change
    }

    /// Refuses what would change a file that is open for reading only, or frozen.
    pub(super) fn must_be_writable(&self) -> Result<()> {
        match self.access {
            Access::ReadOnly => Err(VolumeError::ReadOnly),
            Access::ReadWrite if self.is_frozen() => Err(Errno::PERM.into()),
            Access::ReadWrite => Ok(()),
        }
    }

    /// Makes keys and a header for a file that has none. Nothing reaches the disk yet.
    pub(super) fn ensure_header(&self, state: &mut Change<'_>) -> Result<()> {
        self.must_be_writable()?;
        self.load(state)?;
        // Pages behind the end that could not be cut off must not come back as contents.
        self.write_owed_length(state)?;
        if state.stretched {
            return Err(VolumeError::Tampered("file length"));
        }
        if state.ready.is_some() {
            return self.write_owed_header(state);
        }
        let (file, dek, recipient) = self.keys.create()?;
        self.drop_lost_attributes();
        let keys = FileKeys::new(file, dek);
        let cipher = keys.unit_cipher();
        let header = FileHeader {
            file,
            sequence: 1,
            // Until it is sealed, a crash of this session, and of no other, explains what is odd.
            flags: HeaderFlags { open: true, ..HeaderFlags::default() },
            seal: Seal { size: 0, session: self.shared.session(), mtime: i64::MIN },
            recipients: recipient.into(),
        };
        state.ready = Some(Ready { header, keys, cipher, fresh: true });
        state.has_header = true;
        state.marks.extent.empty();
        Ok(())
    }

    /// A crash may have brought attributes of the file to the disk, and not the header with their key. They
    /// must not be taken for attributes of the next key. *Crash*: nobody can read them, whether they are
    /// gone or not.
    fn drop_lost_attributes(&self) {
        if let Err(error) = self.backing.drop_attributes() {
            log::warn!("attributes under a lost key stay beside a new file: {error}");
        }
    }

    /// Makes durable, before the first page of a change, that this session changes the file.
    ///
    /// Files that the session made need no announcement: their headers say so. Nor do files of one
    /// page before and after: that page is the old one or the new one.
    pub(super) fn announce(&self, state: &mut State, new_size: u64) -> Result<()> {
        let Some(ready) = &state.ready else { return Ok(()) };
        let header = &ready.header;
        let born_now = header.flags.open && header.seal.session == self.shared.session();
        if ready.fresh || born_now || pages_of(state.size.max(new_size)) <= 1 {
            return Ok(());
        }
        let Some(announcements) = self.shared.announcements() else { return Ok(()) };
        let file = header.file;
        self.follow(state)?;
        if state.announced != Some((announcements.generation(), file)) {
            state.announced = Some((announcements.announce(file)?, file));
        }
        Ok(())
    }

    /// Drops a header that never reached the disk, with its key. Used later, it could be under material
    /// that was retired meanwhile, or under a key that the directory has given up: a search for what
    /// still needs them would not have found it.
    fn forget_unwritten(&self, state: &mut State) {
        if state.ready.as_ref().is_some_and(|ready| ready.fresh) {
            state.begin_anew(state.marks.owed_length);
            self.keys.forget();
        }
    }
}

impl State {
    /// The file has neither contents nor a key any more. With its next header it is another file:
    /// nothing that is known of this one is true of that, or explains it.
    ///
    /// `owed_length`: the backing length that could not be set.
    pub(super) fn begin_anew(&mut self, owed_length: Option<u64>) {
        (self.ready, self.has_header) = (None, false);
        (self.cut_short, self.stretched) = (false, false);
        (self.size, self.untouched) = (0, 0);
        self.spills.clear();
        self.marks = self.marks.begun_anew(owed_length);
        (self.excuses, self.mended, self.spoiled) = (Vec::new(), 0, false);
        (self.announced, self.following, self.outdated) = (None, false, false);
        self.marks.touch_contents();
    }
}

impl Deref for Change<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Change<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.content.forget_unwritten(&mut self.state);
    }
}
