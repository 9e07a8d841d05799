//! Writing: split into blocks, merge partial ones, seal, and write group by group.
//!
//! Order within a request (FORMAT section 11.4): the length first, then for each group its spill
//! page before its data pages. A request that fails half way leaves what it wrote, and says how much.

use rustix::io::Errno;
use zeroize::Zeroizing;

use super::cache::GroupState;
use super::read::with_pages;
use super::{Content, State};
use crate::envelope::layout::{
    Block, Copy2, FIRST_PAYLOAD, Group, MAX_SIZE, PAGE_LEN, Page, backing_len, in_memory, pages_of,
};
use crate::envelope::{EntryState, Nonces, Seal, SpillPage, UnitPlace};
use crate::volume::model::error::{Result, VolumeError};

/// A block that a write covers only in part, merged with what it held.
struct Merged {
    block: Block,
    /// On the heap: a move would leave a copy on the stack.
    bytes: Box<Zeroizing<Page>>,
    length: usize,
}

/// The plaintext of every block that a write changes.
struct Pieces<'a> {
    offset: u64,
    data: &'a [u8],
    merged: [Option<Merged>; 2],
}

/// One group's part of a write.
struct Batch {
    group: Group,
    first: Block,
    end: Block,
    /// The size of the file before the write.
    before: u64,
}

/// Where the pages of a batch lie in the scratch buffer: block 0, the spill page, the other blocks.
const SLOT_ZERO: usize = 0;
const SLOT_SPILL: usize = 1;
const SLOT_DATA: usize = 2;

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
            self.tell_length(state);
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
        let pieces = self.merge_edges(state, offset, data)?;
        let first = Block::of_offset(offset);
        let past = Block(Block::of_offset(end - 1).0 + 1);
        self.keep_old(state, first, past)?;
        if first.0 > 0 {
            self.write_fresh_header(state)?;
        }
        if end > old {
            self.set_length(backing_len(end))?;
            state.size = end;
        }
        let mut at = first;
        while at < past {
            let group = at.group();
            let batch = Batch { group, first: at, end: past.min(group.end_block()), before: old };
            state.marks.written.add(at.data_page(), Block(batch.end.0 - 1).data_page());
            let written = self.write_batch(state, &batch, &pieces);
            state.marks.touch();
            state.marks.contents_dirty = true;
            state.marks.unsealed = !self.is_sealed_whole(state);
            match written {
                Ok(blocks) if blocks == batch.end.0 - batch.first.0 => at = batch.end,
                other => {
                    state.marks.written.blur();
                    // What ends early without an error found no room.
                    let (done, error) = match other {
                        Ok(done) => (done, VolumeError::Io(Errno::NOSPC)),
                        Err(error) => (0, error),
                    };
                    let undone = Block(at.0 + done);
                    Self::note_uncertain(state, group, &error);
                    return self.cut_short(state, offset, old, undone, error);
                }
            }
        }
        state.untouched = state.untouched.max(state.size);
        Ok(data.len())
    }

    /// A write failed in a way that leaves open what arrived: the end of the file is written again,
    /// and the blocks that have their tails in the same page are looked at before the next seal.
    fn note_uncertain(state: &mut State, group: Group, error: &VolumeError) {
        if matches!(error, VolumeError::Io(_)) && !is_untouched(error) {
            state.marks.end_owed = true;
            state.marks.doubt(group.first_block(), group.end_block());
        }
    }

    /// A write ended before `undone`: the file ends where its last good byte is.
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
            self.tell_length(state);
        }
        match reached.checked_sub(offset) {
            Some(done @ 1..) => Ok(in_memory(done)),
            _ => Err(error),
        }
    }

    /// Reads and merges the blocks that the write covers only in part.
    fn merge_edges<'a>(
        &self,
        state: &mut State,
        offset: u64,
        data: &'a [u8],
    ) -> Result<Pieces<'a>> {
        let end = offset + data.len() as u64;
        let (first, last) = (Block::of_offset(offset), Block::of_offset(end - 1));
        let mut pieces = Pieces { offset, data, merged: [None, None] };
        let edges = if first == last { [Some(first), None] } else { [Some(first), Some(last)] };
        for (slot, block) in pieces.merged.iter_mut().zip(edges) {
            let Some(block) = block else { continue };
            let (from, to) = (block.before(offset), block.before(end));
            let held = block.before(state.size);
            if from == 0 && to >= held {
                continue;
            }
            let mut bytes = Box::new(Zeroizing::new([0; PAGE_LEN]));
            if held > 0 {
                self.read_block(state, block, &mut bytes)?;
                self.settle_if_durable(state, block);
            }
            let start = in_memory(block.start() + from as u64 - offset);
            bytes[from..to].copy_from_slice(&data[start..start + (to - from)]);
            *slot = Some(Merged { block, bytes, length: held.max(to) });
        }
        Ok(pieces)
    }

    /// R4: a page that holds older durable bytes is not rewritten while it may be on its way to the
    /// disk, or a mixture of the two versions could reach it.
    pub(super) fn settle_if_durable(&self, state: &mut State, block: Block) {
        if block.start() < state.marks.durable_size && !state.marks.rewritten.insert(block) {
            let settle = || self.backing.settle(block.data_page().offset(), PAGE_LEN as u64);
            // It may be told here that something which was written before is not on the disk. That
            // is for a sync to say, and nothing of the page is on its way any more.
            for _ in 0..2 {
                let Err(error) = settle() else { break };
                self.sync_failed(state, error);
            }
        }
    }

    /// Seals and writes the blocks of one group; returns how many of them are written whole.
    fn write_batch(&self, state: &mut State, batch: &Batch, pieces: &Pieces<'_>) -> Result<u64> {
        let blocks = in_memory(batch.end.0 - batch.first.0);
        // A file of one page has no spill pages, and nothing is ever written past the end.
        let with_spill = pages_of(state.size) > 1 && (state.sparse() || batch.has_tails(pieces));
        let mut nonces = Nonces::draw(blocks + 1)?;
        with_pages(SLOT_DATA + blocks, |scratch| {
            let tags = self.seal_data(state, batch, pieces, &mut nonces, scratch)?;
            if !with_spill {
                return self.write_data(state, batch, scratch, None);
            }
            let mut filled = false;
            let before = self.change_spill_from(state, batch.group, batch.before, |page| {
                for (block, tag) in (batch.first.0..).map(Block).zip(&tags) {
                    let (_, tail) = pieces.halves(block);
                    let entry = match page.entry(block.index()).state {
                        _ if tail.is_empty() => EntryState::Absent,
                        EntryState::Hole | EntryState::Filled => EntryState::Filled,
                        _ => EntryState::Present,
                    };
                    filled |= entry == EntryState::Filled;
                    page.set(block.index(), entry, *tag, tail);
                }
            })?;
            if filled {
                state.marks.filled.insert(batch.group);
            }
            let spill = &mut scratch[SLOT_SPILL];
            let target = self.spill_target(state, batch.group);
            if let Err(error) = self.seal_spill(state, batch.group, &mut nonces, spill) {
                self.restore_spill(state, batch.group, before);
                return Err(error);
            }
            let generation = state.marks.touch();
            let written = self.write_data(state, batch, scratch, Some(target));
            let done = written.as_ref().map_or(0, |done| *done);
            if done < blocks as u64 {
                self.take_back(state, batch, done, before, generation);
            }
            written
        })
    }

    fn seal_data(
        &self,
        state: &State,
        batch: &Batch,
        pieces: &Pieces<'_>,
        nonces: &mut Nonces,
        scratch: &mut [Page],
    ) -> Result<Vec<[u8; 8]>> {
        let cipher = &state.ready()?.cipher;
        let mut tags = Vec::with_capacity(in_memory(batch.end.0 - batch.first.0));
        for block in (batch.first.0..batch.end.0).map(Block) {
            let (payload, _) = pieces.halves(block);
            let place = UnitPlace::data(block.data_page());
            tags.push(cipher.seal(place, nonces, payload, &mut scratch[batch.slot_of(block)])?);
        }
        Ok(tags)
    }

    /// Writes the sealed pages, the spill page first; returns how many blocks are written whole.
    fn write_data(
        &self,
        state: &mut State,
        batch: &Batch,
        scratch: &mut [Page],
        target: Option<Copy2>,
    ) -> Result<u64> {
        let zero = batch.first.0 == 0;
        let fresh = zero && state.ready()?.fresh;
        if fresh {
            self.seal_small_file(state);
            self.fresh_slots(state, &mut scratch[SLOT_ZERO])?;
        }
        let zero_start = if fresh { 0 } else { Block(0).data_page().unit_start() };
        let blocks = in_memory(batch.end.0 - batch.first.0);
        let data_blocks = if zero { blocks - 1 } else { blocks };
        let data_first = Block(if zero { 1 } else { batch.first.0 });
        let bytes = |from: usize, to: usize| &scratch.as_flattened()[from..to];
        let (spill_at, data_at) = (SLOT_SPILL * PAGE_LEN, SLOT_DATA * PAGE_LEN);
        let data_end = data_at + data_blocks * PAGE_LEN;
        let mut done = 0;
        // Page 0 and the first copy of group 0 are neighbours, as are the first copy of any other
        // group and its first data page: each pair goes out in one call.
        // Not so where the copy's first write may find no space: a full disk would leave page 0
        // without it (R13).
        let has_room = fresh || self.has_spill_page(state, batch.group);
        let joined_zero = zero && target == Some(Copy2::First) && has_room;
        let joined_data = !zero
            && target == Some(Copy2::First)
            && batch.group.0 > 0
            && batch.first == batch.group.first_block();
        if let Some(copy) = target.filter(|_| !joined_zero && !joined_data) {
            let page = batch.group.spill_page(copy);
            self.put_spill(state, batch.group, bytes(spill_at, data_at), page.offset())?;
        }
        if zero {
            let end = if joined_zero { data_at } else { spill_at };
            let went = self.backing.write_at(bytes(zero_start, end), zero_start as u64);
            if joined_zero && went.is_err() {
                self.spill_went(state, batch.group, went);
            }
            let taken = went?;
            if taken < spill_at - zero_start {
                return Err(VolumeError::Io(Errno::NOSPC));
            }
            done += 1;
            if fresh {
                self.header_is_out(state);
            }
            if joined_zero && taken < end - zero_start {
                self.spill_is_owed(state, batch.group);
                return Ok(done);
            }
            if joined_zero {
                self.spill_is_out(state, batch.group);
            }
        }
        if data_blocks > 0 {
            let lead = if joined_data { PAGE_LEN } else { 0 };
            let offset = data_first.data_page().offset() - lead as u64;
            let went = self.backing.write_at(bytes(data_at - lead, data_end), offset);
            if joined_data {
                self.spill_went(state, batch.group, went);
            }
            let taken = match went {
                Err(error) if done == 0 => return Err(error.into()),
                Err(error) => {
                    Self::note_uncertain(state, batch.group, &error.into());
                    0
                }
                Ok(taken) => taken,
            };
            done += (taken.saturating_sub(lead) / PAGE_LEN) as u64;
        }
        Ok(done)
    }

    /// A file that goes out whole in one page is sealed with it: there is nothing to sync between.
    /// Where that page may tear, the header could arrive alone.
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

    /// Blocks past the first `done` of the batch were not written: their tails are the old ones.
    fn take_back(
        &self,
        state: &mut State,
        batch: &Batch,
        done: u64,
        before: SpillPage,
        generation: u64,
    ) {
        let is_out = |spill: &GroupState| spill.roles.updated > generation;
        let on_disk = state.spills.lock().get(&batch.group).is_some_and(is_out);
        if !on_disk && done == 0 {
            return self.restore_spill(state, batch.group, before);
        }
        let written = self.change_spill(state, batch.group, |page| {
            for block in (batch.first.0 + done..batch.end.0).map(Block) {
                let entry = before.entry(block.index());
                page.set(block.index(), entry.state, entry.binding, entry.tail);
            }
        });
        if let Err(error) = written.and_then(|_| self.write_spill(state, batch.group)) {
            log::warn!("a spill page waits for the next sync: {error}");
            self.spill_is_owed(state, batch.group);
            state.marks.doubt(batch.group.first_block(), batch.group.end_block());
        }
    }
}

/// True for an error by which the system says that there is no room: it has changed nothing.
pub(super) fn is_untouched(error: &VolumeError) -> bool {
    matches!(error, VolumeError::Io(Errno::NOSPC | Errno::DQUOT | Errno::FBIG))
}

impl Batch {
    fn has_tails(&self, pieces: &Pieces<'_>) -> bool {
        let mut blocks = (self.first.0..self.end.0).map(Block);
        blocks.any(|block| pieces.of(block).len() > block.payload())
    }

    fn slot_of(&self, block: Block) -> usize {
        match (block.0, self.first.0) {
            (0, _) => SLOT_ZERO,
            (number, 0) => SLOT_DATA + in_memory(number - 1),
            (number, first) => SLOT_DATA + in_memory(number - first),
        }
    }
}

impl Pieces<'_> {
    /// The block's contents after the write, from its first byte.
    fn of(&self, block: Block) -> &[u8] {
        if let Some(merged) = self.merged.iter().flatten().find(|m| m.block == block) {
            return &merged.bytes[..merged.length];
        }
        // One that is not merged begins inside of what is written.
        let rest = &self.data[in_memory(block.start() - self.offset)..];
        &rest[..rest.len().min(PAGE_LEN)]
    }

    /// What of it goes into the data page, and its tail.
    fn halves(&self, block: Block) -> (&[u8], &[u8]) {
        let bytes = self.of(block);
        bytes.split_at(bytes.len().min(block.payload()))
    }
}
