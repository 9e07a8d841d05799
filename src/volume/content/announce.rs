//! Announces a change of a file before it is made, and decides whether a crash excuses what is odd in
//! the file (FORMAT section 12.3).

use super::{Content, State};
use crate::envelope::layout::{Block, pages_of};
use crate::volume::model::error::Result;

impl Content {
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

    /// True if a crash, a sync that failed, or a change of `block` that failed half way may have left
    /// it odd.
    ///
    /// Otherwise, what is odd was changed from outside. The backing mtime says nothing here, since
    /// whoever tampers moves it too.
    pub(super) fn crash_may_explain(&self, state: &State, block: Block) -> bool {
        state.marks.doubt.covers(block) || (block.start() >= state.mended && self.is_excused(state))
    }

    /// True if a crash that is not mended yet may have left the file odd.
    pub(super) fn is_excused(&self, state: &State) -> bool {
        !state.excuses.is_empty() && self.shared.still_unrecovered(&state.excuses)
    }
}
