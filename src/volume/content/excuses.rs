//! Whether a crash excuses what is odd in a file (FORMAT section 12.3).

use super::{Content, State};
use crate::envelope::layout::Block;

impl Content {
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
