//! The header of a file that gets its first contents: it is made in memory, and written with page 0.

use crate::envelope::RECORD_LEN;
use crate::envelope::layout::{HEADER_AREA, PAGE_LEN, backing_len};
use crate::volume::content::{Content, State};
use crate::volume::model::error::Result;

impl Content {
    /// Writes page 0 of a file that has a header but no contents yet.
    pub(in crate::volume::content) fn write_fresh_header(&self, state: &mut State) -> Result<()> {
        if !state.ready()?.fresh {
            return Ok(());
        }
        let mut page = [0; PAGE_LEN];
        self.fresh_slots(state, page.first_chunk_mut().expect("page 0 begins with the slots"))?;
        self.set_length(backing_len(state.size))?;
        if let Err(error) = self.write_all(&page, 0) {
            self.correct_length(state);
            return Err(error);
        }
        self.header_is_out(state);
        Ok(())
    }

    /// Puts both slots of a fresh header into the page that is about to go out.
    pub(in crate::volume::content) fn fresh_slots(
        &self,
        state: &State,
        area: &mut [u8; HEADER_AREA],
    ) -> Result<()> {
        let ready = state.ready()?;
        let bytes = ready.header.encode(&ready.keys);
        area.chunks_exact_mut(RECORD_LEN).for_each(|slot| slot.copy_from_slice(&bytes));
        Ok(())
    }

    /// Notes that the page of a fresh header was written.
    pub(in crate::volume::content) fn header_is_out(&self, state: &mut State) {
        if let Some(ready) = &mut state.ready {
            ready.fresh = false;
        }
        let generation = state.marks.touch();
        state.marks.header.born(generation);
    }
}
