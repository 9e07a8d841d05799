//! Where data and holes are, from where the backing file has pages.

use super::{Content, State};
use crate::envelope::layout::{Block, PageNo, PageRole};
use crate::volume::error::Result;

/// What to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// The next byte that is not in a hole.
    Data,
    /// The next byte that is; the end of the file counts as one.
    Hole,
}

impl Content {
    /// The offset of the next data or hole at or after `offset`, or `None` when there is none.
    ///
    /// # Errors
    /// `Io` when the backing filesystem refuses.
    pub fn seek(&self, offset: u64, to: SeekTo) -> Result<Option<u64>> {
        let state = self.ready_state()?;
        if offset >= state.size {
            return Ok(None);
        }
        if !state.sparse() {
            return Ok(Some(if to == SeekTo::Data { offset } else { state.size }));
        }
        let found = match to {
            SeekTo::Data => self.next_data(&state, Block::of_offset(offset))?,
            SeekTo::Hole => Some(self.next_hole(&state, Block::of_offset(offset))?),
        };
        Ok(found.map(|block| block.start().max(offset).min(state.size)))
    }

    fn next_data(&self, state: &State, from: Block) -> Result<Option<Block>> {
        let mut page = from.data_page();
        loop {
            let Some(at) = self.backing.next_data(page.offset())? else { return Ok(None) };
            page = PageNo(at / crate::envelope::layout::PAGE);
            match page.role() {
                PageRole::Data(block) if block.start() >= state.size => return Ok(None),
                // The header keeps page 0 allocated whether or not block 0 is a hole.
                PageRole::Data(block) if block.0 > 0 || !self.first_is_hole(state)? => {
                    return Ok(Some(block.max(from)));
                }
                _ => page = PageNo(page.0 + 1),
            }
        }
    }

    fn next_hole(&self, state: &State, from: Block) -> Result<Block> {
        let end = Block(state.size.div_ceil(crate::envelope::layout::PAGE));
        if from.0 == 0 && self.first_is_hole(state)? {
            return Ok(from);
        }
        let mut page = from.data_page();
        if page.0 == 0 {
            page = Block(1).data_page();
        }
        loop {
            // Behind the end the backing file answers with its end.
            let at = self.backing.next_hole(page.offset())?.max(page.offset());
            page = PageNo(at.div_ceil(crate::envelope::layout::PAGE));
            match page.role() {
                PageRole::Data(block) => return Ok(block.min(end)),
                PageRole::Spill(group, _) if group.first_block() >= end => return Ok(end),
                PageRole::Spill(..) => page = PageNo(page.0 + 1),
            }
        }
    }

    fn first_is_hole(&self, state: &State) -> Result<bool> {
        let mut header = [0; crate::envelope::SEALED_UNIT_HEADER];
        let start = Block(0).data_page().unit_start() as u64;
        self.backing.read_at(&mut header, start)?;
        Ok(state.size > 0 && header.iter().all(|b| *b == 0))
    }
}
