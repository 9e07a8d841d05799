//! A change of a file, with the locks that it holds, and what it must not leave in memory.

use std::ops::{Deref, DerefMut};

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::{Content, State};

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
