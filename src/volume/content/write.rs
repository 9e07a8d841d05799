//! Writing: split into blocks, merge partial ones, seal, and write group by group.
//!
//! Order within a request (FORMAT section 11.4): the length first, then for each group its spill
//! page before its data pages. A request that fails half way leaves what it wrote, and says how much.

use rustix::io::Errno;

use super::pages::{Arrival, PageBatch, Plain, is_untouched, with_pages};
use super::{Content, State};
use crate::envelope::layout::{Block, FIRST_PAYLOAD, Group, MAX_SIZE, PAGE_LEN};
use crate::envelope::layout::{backing_len, in_memory, pages_of};
use crate::envelope::{EntryState, Nonces, Seal, SpillPage, UnitPlace, binding_of};
use crate::volume::model::error::{Result, VolumeError};

/// How far the write of one group came.
struct Written {
    /// Blocks that are in the file, from the first on.
    blocks: u64,
    /// Why not all of them are.
    failure: Option<VolumeError>,
}

/// A group's spill page before a write changed it, and the state of the file then.
struct Before {
    page: SpillPage,
    generation: u64,
}

impl Content {
    /// Writes `data` at `offset` and returns how many bytes were taken.
    ///
    /// # Errors
    /// `Io` (no space, a failing disk) when nothing was written; `TooLarge`; as [`Self::read`] when
    /// a block must be read first; `KeyUnusable` when an empty file needs its key.
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let fits = offset.checked_add(data.len() as u64).is_some_and(|end| end <= MAX_SIZE);
        if !fits {
            return Err(VolumeError::TooLarge);
        }
        self.with_journal_room(|| self.write_some(offset, data))
    }

    fn write_some(&self, offset: u64, data: &[u8]) -> Result<usize> {
        let mut state = self.change();
        self.ensure_header(&mut state)?;
        self.announce(&mut state, offset + data.len() as u64)?;
        self.growing(&mut state, |state, solid| {
            if offset > state.size {
                *solid = Some(self.fill_gap(state, offset)?);
            }
            self.write_range(state, offset, data)
        })
    }

    /// Runs a change that may make the file longer and notes what [`Self::fill_gap`] returns. If
    /// it fails the file ends where it did before: neither a hole nor zeros that were to lie before
    /// the new bytes are left as its end.
    pub(super) fn growing<T>(
        &self,
        state: &mut State,
        change: impl FnOnce(&mut State, &mut Option<u64>) -> Result<T>,
    ) -> Result<T> {
        let (before, mut solid) = (state.size, None);
        let outcome = change(state, &mut solid);
        if outcome.is_ok() {
            return outcome;
        }
        if let Some(solid) = solid.filter(|solid| *solid < state.size) {
            state.size = solid;
            self.correct_length(state);
        }
        if state.size > before {
            self.take_growth_back(state, before);
        }
        outcome
    }

    /// Writes where there is no gap between the end of the file and `offset`.
    pub(super) fn write_range(&self, state: &mut State, offset: u64, data: &[u8]) -> Result<usize> {
        let end = offset + data.len() as u64;
        let old = state.size;
        let plain = Plain::merged((offset, data), old, |block, bytes| {
            self.read_block(state, block, bytes)?;
            self.wait_before_rewrite(state, block);
            Ok(())
        })?;
        let (mut at, past) = (plain.first(), plain.end());
        self.journal_old_pages(state, at, past)?;
        if at.0 > 0 {
            self.write_fresh_header(state)?;
        }
        if end > old {
            self.set_length(backing_len(end))?;
            state.size = end;
        }
        while at < past {
            let stop = past.min(at.group().end_block());
            state.marks.pages.add(at.data_page(), Block(stop.0 - 1).data_page());
            let written = self.write_group(state, (at, stop), old, &plain);
            state.marks.changes.touch_contents();
            let is_sealed = self.is_sealed_whole(state);
            state.marks.changes.set_unsealed(!is_sealed);
            let undone = Block(at.0 + written.blocks);
            if undone < stop {
                // What ends early without an error found no room.
                let error = written.failure.unwrap_or(VolumeError::Io(Errno::NOSPC));
                state.marks.pages.blur();
                Self::note_uncertain(state, at.group(), &error);
                return self.cut_short(state, offset, old, undone, error);
            }
            at = stop;
        }
        state.untouched = state.untouched.max(state.size);
        Ok(data.len())
    }

    /// Notes a failed write of which nobody knows what arrived: the end of the file is written again,
    /// and the blocks with tails in the same page are looked at before the next seal.
    fn note_uncertain(state: &mut State, group: Group, error: &VolumeError) {
        if matches!(error, VolumeError::Io(_)) && !is_untouched(error) {
            state.marks.end_owed = true;
            state.marks.doubt.add(group.first_block(), group.end_block());
        }
    }

    /// Ends the file at its last good byte, after a write that ended before `undone`.
    fn cut_short(
        &self,
        state: &mut State,
        offset: u64,
        old: u64,
        undone: Block,
        error: VolumeError,
    ) -> Result<usize> {
        let reached = undone.start();
        state.untouched = u64::MAX;
        if state.size > old {
            state.size = old.max(reached);
            self.correct_length(state);
        }
        match reached.checked_sub(offset) {
            Some(done @ 1..) => Ok(in_memory(done)),
            _ => Err(error),
        }
    }

    /// R4: waits until a page that is overwritten in part, and holds older durable bytes, is not on its
    /// way to the disk any more: a mixture of the two versions could reach it.
    pub(super) fn wait_before_rewrite(&self, state: &mut State, block: Block) {
        if state.marks.extent.reaches(block) && state.marks.pages.is_rewritten_again(block) {
            let write_back =
                || self.backing.write_back(block.data_page().offset(), PAGE_LEN as u64);
            // The error may be of something that was written before and is not on the disk. That
            // is for a sync to say, and nothing of the page is on its way any more.
            for _ in 0..2 {
                let Err(error) = write_back() else { break };
                self.sync_failed(state, error);
            }
        }
    }

    /// Seals and writes the blocks of one group, in a file that had `before` bytes.
    fn write_group(
        &self,
        state: &mut State,
        (first, end): (Block, Block),
        before: u64,
        plain: &Plain<'_>,
    ) -> Written {
        with_pages(PageBatch::room(first, end), |pages| {
            let mut batch = PageBatch::new(first, end, pages);
            let changed = match self.seal_batch(state, &mut batch, before, plain) {
                Ok(changed) => changed,
                Err(error) => return Written { blocks: 0, failure: Some(error) },
            };
            let written = self.write_batch(state, &batch);
            if let Some(before) = changed
                && written.blocks < batch.count()
            {
                self.take_back(state, &batch, written.blocks, before);
            }
            written
        })
    }

    /// Seals everything that a batch writes. Returns the group's spill page as it was if that is part
    /// of it.
    fn seal_batch(
        &self,
        state: &mut State,
        batch: &mut PageBatch<'_>,
        before: u64,
        plain: &Plain<'_>,
    ) -> Result<Option<Before>> {
        let mut nonces = Nonces::draw(in_memory(batch.count()) + 1)?;
        let cipher = &state.ready()?.cipher;
        for block in batch.blocks() {
            let (payload, _) = plain.halves(block);
            let place = UnitPlace::data(block.data_page());
            cipher.seal(place, &mut nonces, payload, batch.page_mut(block))?;
        }
        // A file of one page has no spill pages, and nothing is ever written past the end.
        let has_tails = batch.blocks().any(|block| !plain.halves(block).1.is_empty());
        let with_spill = pages_of(state.size) > 1 && (state.sparse() || has_tails);
        let changed = match with_spill {
            true => Some(self.seal_tails(state, batch, &mut nonces, before, plain)?),
            false => None,
        };
        if batch.begins_the_file() && state.ready()?.fresh {
            self.seal_small_file(state);
            self.fresh_slots(state, batch.slots_mut())?;
        } else if batch.begins_the_file() && changed.is_some() {
            // A full disk would leave page 0 without its tail (R13).
            batch.keep_spill_apart_unless(state.spills.is_there(batch.group()));
        }
        Ok(changed)
    }

    /// Puts the tails of a batch into the group's spill page, and seals that.
    fn seal_tails(
        &self,
        state: &mut State,
        batch: &mut PageBatch<'_>,
        nonces: &mut Nonces,
        before: u64,
        plain: &Plain<'_>,
    ) -> Result<Before> {
        let (group, mut filled) = (batch.group(), false);
        let page = self.change_spill(state, group, before, |page| {
            for block in batch.blocks() {
                let (_, tail) = plain.halves(block);
                let entry = match page.entry(block.index()).state {
                    _ if tail.is_empty() => EntryState::Absent,
                    EntryState::Hole | EntryState::Filled => EntryState::Filled,
                    _ => EntryState::Present,
                };
                filled |= entry == EntryState::Filled;
                let binding = binding_of(block.data_page(), batch.page(block));
                page.set(block.index(), entry, binding, tail);
            }
        })?;
        if filled {
            state.marks.filled.insert(group);
        }
        let room = batch.spill_mut(state.spills.target(group));
        if let Err(error) = self.seal_spill(state, group, nonces, room) {
            state.spills.restore(group, page);
            return Err(error);
        }
        Ok(Before { page, generation: state.marks.touch() })
    }

    /// Makes the calls of a batch, up to the first that does not arrive whole.
    fn write_batch(&self, state: &mut State, batch: &PageBatch<'_>) -> Written {
        let mut blocks = 0;
        for call in batch.calls() {
            let went = self.backing.write_at(call.bytes, call.offset);
            let landed = call.landed(went);
            if let Some(arrival) = landed.spill {
                self.spill_arrived(state, batch.group(), arrival);
            }
            if landed.blocks > 0 && state.ready.as_ref().is_some_and(|ready| ready.fresh) {
                self.header_is_out(state);
            }
            blocks += landed.blocks;
            if !landed.whole {
                return Written { blocks, failure: went.err().map(VolumeError::Io) };
            }
        }
        Written { blocks, failure: None }
    }

    /// Seals a file that goes out whole in one page with that page: no sync is needed in between. Not
    /// where the page may tear: the header could arrive alone.
    fn seal_small_file(&self, state: &mut State) {
        let size = state.size;
        if size <= FIRST_PAYLOAD as u64
            && self.shared.journal().is_none()
            && let Some(ready) = &mut state.ready
        {
            ready.header.seal = Seal { size, session: self.shared.session(), mtime: i64::MIN };
        }
    }

    /// True for a small file whose only page took its seal along.
    fn is_sealed_whole(&self, state: &State) -> bool {
        let seal = state.ready.as_ref().map(|ready| ready.header.seal);
        let born = |seal: Seal| seal.size == state.size && seal.mtime == i64::MIN;
        pages_of(state.size) == 1 && seal.is_some_and(born)
    }

    /// Restores the tails of the blocks past the first `done` of the batch, which were not written.
    fn take_back(&self, state: &mut State, batch: &PageBatch<'_>, done: u64, before: Before) {
        let (group, Before { page: before, generation }) = (batch.group(), before);
        if done == 0 && !state.spills.is_out_since(group, generation) {
            return state.spills.restore(group, before);
        }
        let written = self.change_spill(state, group, state.size, |page| {
            for block in batch.blocks().skip(in_memory(done)) {
                let entry = before.entry(block.index());
                page.set(block.index(), entry.state, entry.binding, entry.tail);
            }
        });
        if let Err(error) = written.and_then(|_| self.write_spill(state, group)) {
            log::warn!("a spill page waits for the next sync: {error}");
            self.spill_arrived(state, group, Arrival::Unknown);
            state.marks.doubt.add(group.first_block(), group.end_block());
        }
    }
}
