//! Where data and holes are.
//!
//! The backing file says where it has pages, and whoever writes to the vault says what the backing
//! file has: a range is a hole only if the group's spill page says so as well. Otherwise a program
//! that copies the data alone would take zeros for what a read refuses. Groups without any page are
//! holes by themselves (FORMAT section 5), and are passed over without a look at each.

use super::{Content, State};
use crate::envelope::EntryState;
use crate::envelope::layout::{Block, Group, PAGE, PageNo, PageRole, last_block};
use crate::volume::model::error::Result;

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
    /// `Io` when the backing filesystem refuses; `Tampered` when a spill page does not open.
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

    /// The first offset, at or after `offset`, from which the file has a page: in a dense file,
    /// everything before it is missing. Without such a page, the end of what can be addressed.
    ///
    /// # Errors
    /// Those of the backing filesystem.
    pub(in crate::volume) fn next_page(&self, offset: u64) -> Result<u64> {
        let state = self.ready_state()?;
        if state.sparse() {
            return Ok(offset);
        }
        let block = self.next_paged(Block::of_offset(offset))?;
        Ok(block.0.saturating_mul(PAGE).max(offset))
    }

    fn next_data(&self, state: &State, from: Block) -> Result<Option<Block>> {
        let end = Block(state.size.div_ceil(PAGE));
        let mut at = from;
        while at < end {
            if !self.is_hole(state, at)? {
                return Ok(Some(at));
            }
            // What lies between this hole and the group's next page must be vouched for as well.
            let stop = at.group().end_block().min(end);
            let after = Block(at.0 + 1);
            let paged = self.next_paged(after)?.min(stop);
            let unvouched = self.with_spill(state, at.group(), |spill, absent| {
                let is_hole = |block: &Block| spill.entry(block.index()).state == EntryState::Hole;
                (after.0..paged.0).map(Block).find(|block| !absent && !is_hole(block))
            })?;
            at = match unvouched {
                Some(block) => return Ok(Some(block)),
                None if paged < stop => paged,
                None => match self.next_group(stop)? {
                    Some(group) => stop.max(group.first_block()),
                    None => break,
                },
            };
        }
        // The last block always has a page; where it has none, a read says what that is.
        Ok(last_block(state.size).map(|(last, _)| last.max(from)))
    }

    /// The first block from `from` on that has a page in the backing file.
    fn next_paged(&self, from: Block) -> Result<Block> {
        let Some(at) = self.backing.next_data(from.data_page().offset())? else {
            return Ok(Block(u64::MAX));
        };
        Ok(match PageNo(at / PAGE).role() {
            PageRole::Data(block) => block.max(from),
            PageRole::Spill(group, _) => group.first_block().max(from),
        })
    }

    fn next_hole(&self, state: &State, from: Block) -> Result<Block> {
        let end = Block(state.size.div_ceil(PAGE));
        let mut at = from;
        while at < end && !self.is_hole(state, at)? {
            // Behind the end the backing file answers with its end.
            let after = Block(at.0 + 1);
            let page = self.backing.next_hole(after.data_page().offset())?.div_ceil(PAGE);
            at = match PageNo(page).role() {
                PageRole::Data(block) => block.max(after),
                PageRole::Spill(group, _) => group.first_block().max(after),
            };
        }
        Ok(at.min(end))
    }

    /// The first group with any page in the backing file, of those from the one of `from` on.
    pub(super) fn next_group(&self, from: Block) -> Result<Option<Group>> {
        let from = from.group().first_page();
        let Some(at) = self.backing.next_data(from.offset())? else { return Ok(None) };
        Ok(Some(match PageNo(at / PAGE).role() {
            PageRole::Data(block) => block.group(),
            PageRole::Spill(group, _) => group,
        }))
    }

    /// True if the block has no page, and it is authentic that it needs none.
    fn is_hole(&self, state: &State, block: Block) -> Result<bool> {
        if last_block(state.size).is_none_or(|(last, _)| last == block) {
            return Ok(false);
        }
        let has_page = if block.0 == 0 {
            // The header keeps page 0 allocated whether or not block 0 is a hole.
            !self.is_first_erased()?
        } else {
            let page = block.data_page().offset();
            self.backing.next_data(page)?.is_some_and(|at| at < page + PAGE)
        };
        if has_page {
            return Ok(false);
        }
        self.with_spill(state, block.group(), |spill, absent| {
            absent || spill.entry(block.index()).state == EntryState::Hole
        })
    }

    fn is_first_erased(&self) -> Result<bool> {
        let mut header = [0; crate::envelope::SEALED_UNIT_HEADER];
        let start = Block(0).data_page().unit_start() as u64;
        self.backing.read_at(&mut header, start)?;
        Ok(header.iter().all(|b| *b == 0))
    }
}
